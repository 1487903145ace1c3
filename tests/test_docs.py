"""The documentation is true where a test can tell: names, links and versions exist, commands run, examples work.

A page's commands are run in order in an empty folder, sweeps as `--dry-run`. A command that this file does not know how
to check fails: nobody should have to try out what is printed.
"""

import ast
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import owned
import pandas as pd
import pytest
import torch
from helpers import batch_for, build, gradients, norm, pairs
from PIL import Image
from plan_helpers import DIGESTS, decided
from sweep_helpers import BUDGET, small_suite
from torch.nn import functional as F

import objectives
from data.audit import __main__ as audit
from data.batch import Batch, Rows
from data.convert import __main__ as convert
from data.corpora import open_corpus
from data.document import RawDocument
from data.images import open_image
from data.toyworld import __main__ as toyworld
from experiments import cancel, conversations, dialogue, evaluate, questions, score, status, sweep, tables
from experiments.configuration.corpora import TASKS
from experiments.configuration.place import Place
from experiments.configuration.recipe import get_scale
from experiments.configuration.slurm import SlurmConfig
from experiments.planning.catalogue import Suite
from experiments.planning.plan import build_plan
from experiments.running.world import open_split
from experiments.tables import get_table
from objectives import registry
from objectives.functional import total
from results.schema import Row
from transfer.dialogue.scoring.registry import BENCHMARKS

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "docs/decisions", "results", "results/paper", "results/tables", "tests")
PAGES = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]
WRITTEN = [page for page in PAGES if page.is_relative_to(ROOT / "docs") or page.parent == ROOT]
WITH_COMMANDS = [page for page in WRITTEN if re.search(r"^```(sh|console)$", page.read_text(), re.MULTILINE)]
MADE_UP = {"objectives/siglip.py"}  # the example of CONTRIBUTING.md
NOT_OURS = {"cd", "git", "rm", "."}

NAME = re.compile(r"`([\w/]+\.py):([A-Za-z_][\w.]*)`")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
FILE = re.compile(r"`((?:data|backbones|objectives|transfer|experiments|results|tests|docs)/[\w./-]*\w\.\w+)[:`]")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def every(pages: Sequence[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=name_of)


def defined(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Names that a module or class defines at its top."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        yield from ((each.id, node) for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))


def exists(file: str, dotted: str) -> bool:
    """Whether the file defines that name; "LCL.Config.layout" is a field of a nested class."""
    path = ROOT / file
    body: Sequence[ast.stmt] = ast.parse(path.read_text()).body if path.is_file() else []
    for part in dotted.split("."):
        found = dict(defined(body)).get(part)
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def fenced(page: Path, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = "\n".join(fenced(page, "sh", "console")).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.strip() and not line.startswith("#")]


# --- names, links, versions


@every(WRITTEN)
def test_functions_tests_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    missing = [f"{file}:{name}" for file, name in NAME.findall(text) if not exists(file, name)]
    missing += [f"{file}::{name}" for file, name in TEST.findall(text) if not exists(file, name)]
    # Generated files are there once somebody has made them.
    files = {file for file in FILE.findall(text) if not file.startswith(("results/tables/", "results/records/"))}
    missing += sorted(file for file in files - MADE_UP if not (ROOT / file).is_file())
    assert not missing


def test_a_name_that_is_not_there_would_be_noticed() -> None:
    assert exists("objectives/lcl.py", "LCL.Config.skip_rule") and exists("experiments/tables.py", "TABLE1")
    assert not exists("objectives/lcl.py", "LCL.Config.skip_rules") and not exists("objectives/lcl.py", "LCL.skip_rule")
    assert not exists("objectives/nothing.py", "LCL")


def test_every_line_of_the_paper_map_has_a_function_and_a_test() -> None:
    text = (ROOT / "docs" / "paper_map.md").read_text()
    mapped, _, open_questions = text.partition("## Where the paper leaves it open")
    lines = [
        line for line in mapped.splitlines() if line.startswith("| ") and not re.match(r"\| (paper|---|method)", line)
    ]
    assert len(lines) > 40 and open_questions
    for line in lines:
        _, function, test = line.strip("| ").split(" | ")
        assert NAME.search(function), line
        assert TEST.search(test) and not NAME.search(test), line


def test_the_fields_of_a_batch_are_described() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for kind in (Batch, Rows):
        described = text.partition(f"| field of `{kind.__name__}` |")[2].partition("\n\n")[0]
        named = [name for line in described.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])]
        assert named == [field.name for field in fields(kind)]


@every(PAGES)
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        aim = (page.parent / path).resolve() if path else page
        headings = re.findall(r"^#+ (.+)$", aim.read_text(), re.MULTILINE) if anchor and aim.is_file() else []
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        if not aim.exists() or (anchor and anchor not in slugs):
            broken.append(target)
    assert not broken


def test_newest_changelog_heading_and_citation_are_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(heading for heading in headings if heading != "Unreleased") == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


# --- commands


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a web site and corpora of every kind in it; what a page registers is forgotten afterwards."""
    site = tmp_path / "site"
    site.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (160, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(site / "picture.png")
    words = "Here are ten words at least, so that this page is long enough."
    (site / "index.html").write_text(f"<p>{words}</p><img src='picture.png'><p>And a few after it.</p>")
    owned.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def example(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The objective and the table of CONTRIBUTING.md, as if they had been added to the repository."""
    folder = tmp_path_factory.mktemp("objectives")
    code, declaration = fenced(ROOT / "CONTRIBUTING.md", "python")
    (folder / "siglip.py").write_text(code)
    monkeypatch.setattr(objectives, "__path__", list(objectives.__path__))
    registry.add_folder(folder)
    row = eval(declaration, {"Row": Row})
    monkeypatch.setitem(tables.TABLES, "table1", replace(tables.TABLE1, rows=(*tables.TABLE1.rows, row)))
    yield
    sys.modules.pop("objectives.siglip", None)
    registry._REGISTERED.pop("siglip", None)


@every(WITH_COMMANDS)
@pytest.mark.usefixtures("example")
def test_commands_run(page: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(page):
        problem = run(shlex.split(command))
        said = capsys.readouterr().err.strip()
        assert not problem, f"{command}: {problem} {said}"


def run(words: Sequence[str]) -> str:
    """Do what a command line says, as far as it costs nothing; what is wrong with it, "" for nothing."""
    match list(words):
        case ["make", *rest]:
            targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            asked = [word for word in rest if "=" not in word]
            return "" if asked and set(asked) <= targets else f"the Makefile has {', '.join(sorted(targets))}."
        case ["python", "-m", "experiments.sweep", *rest]:
            kept = [word for word in rest if word not in ("--dry-run", "--collate")]
            code = sweep.main(kept if "--list-settings" in kept else [*kept, "--dry-run"])
        case ["python", "-m", ("experiments.status" | "experiments.cancel") as module, *rest]:
            of = {"experiments.status": status, "experiments.cancel": cancel}[module]
            return "" if get_table(of.parser().parse_args(rest).sweep) else "no such table."
        case ["python", "-m", "experiments.evaluate", *rest]:
            options = evaluate.parser().parse_args(rest)
            known, asked = set(TASKS), set(options.tasks.split(","))
            return "" if asked <= known else f"no tasks {', '.join(sorted(asked - known))}."
        case ["python", "-m", ("experiments.score" | "experiments.questions") as module, *rest]:
            of = {"experiments.score": score, "experiments.questions": questions}[module]
            asked = of.parser().parse_args(rest).benchmark
            return "" if asked in BENCHMARKS else f"no benchmark {asked}."
        case ["python", "-m", "experiments.conversations", *rest]:
            return "" if conversations.parser().parse_args(rest).file else "no file."
        case ["python", "-m", "experiments.dialogue", *rest]:
            return "" if dialogue.parser().parse_args(rest).mode else "no mode."
        case ["python", "-m", "data.toyworld", *rest]:
            return "" if toyworld.parser().parse_args(rest).folder else "no folder."
        case ["python", "-m", "data.convert", *rest]:
            code = convert.main(rest)
        case ["python", "-m", "data.audit", *rest]:
            code = audit.main(rest)
        case ["python", "-m", "pytest", *rest]:
            lost = [word for word in rest if word.startswith("tests") and not (ROOT / word.partition("::")[0]).exists()]
            return f"no {', '.join(lost)}." if lost else ""
        case ["python", "-m", module, *_]:
            return "" if (ROOT / (module.replace(".", "/") + ".py")).is_file() else f"no module {module}."
        case ["python", path, *rest]:
            code_of = (ROOT / path).read_text() if (ROOT / path).is_file() else ""
            lost = [word for word in rest if word.startswith("--") and f'"{word}"' not in code_of]
            return "" if code_of and not lost else f"no file {path} that knows {', '.join(lost)}."
        case [first, *_] if first in NOT_OURS:
            return ""
        case _:
            return "nobody has said in tests/test_docs.py how to check this."
    return "" if code == 0 else f"exit code {code}."


def test_every_folder_of_the_data_page_opens_and_its_pictures_load(place: Path) -> None:
    for name in ("mmc4", "mmc4-tars", "laion", "obelics"):
        document = open_corpus(place / "corpora" / name)[0]
        assert isinstance(document, RawDocument) and open_image(document.images[0]).size == (40, 40)
    config = get_scale("tiny").config.data
    folders = {
        "imagenet": "imagenet",
        "coco": "coco",
        "flickr30k": "flickr30k",
        "nocaps": "nocaps",
        "retrieval_train": "cc12m",
        "caption_train": "laion-coco",
    }
    own = replace(config.called, imagenet="mine", coco="mine", flickr30k="mine", nocaps="mine")  # not whole here
    data = replace(config, called=own, **{field: place / "sets" / name for field, name in folders.items()})
    for field in folders:
        split = open_split(Place(runs=place / "runs", data=data), field, training=field.endswith("train"))
        assert len(split) == 1 and split.load(0).size == (40, 40)


def test_the_cluster_page_is_short_and_names_every_setting_of_slurm() -> None:
    """Each of which reaches sbatch, or is tested beside it: tests/slurm/test_sweep_slurm.py."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    rows = text.partition("| setting |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`slurm\.(\w+)`", rows)) == sorted(field.name for field in fields(SlurmConfig))
    assert len(text.splitlines()) <= 60, "a page"


def test_a_command_that_does_not_run_would_be_noticed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "exit code 2" in run(["python", "-m", "experiments.sweep", "table1", "--set", "pretrain.image=3"])
    assert "exit code 2" in run(["python", "-m", "data.convert", "html", "nowhere", "out"])
    assert run(["make", "table9"]) and run(["python", "-m", "results.nothing"]) and run(["python", "nothing.py"])
    assert run(["python", "tests/golden/update.py", "--nothing"])
    assert run(["curl", "x"])
    assert run(["python", "-m", "pytest", "tests/nothing.py"])


# --- an encoder of one's own


@pytest.mark.slow
def test_an_encoder_of_one_s_own_is_evaluated_by_the_three_lines(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "transfer.md"
    (code,), command = fenced(page, "python"), commands(page)[0]
    assert sum(map(bool, code.splitlines())) + 1 == 3
    small_suite(monkeypatch)
    exec(code, {})
    changes = [part for change in BUDGET for part in ("--set", change)]
    assert evaluate.main([*shlex.split(command)[3:], *changes, "--runs", str(place / "runs")]) == 0
    assert "| classify | imagenet | acc1 " in capsys.readouterr().out


# --- the long form of a table


def test_the_readme_s_two_lines_of_pandas_give_the_paired_difference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against the same difference taken from the run records themselves."""
    (code,) = fenced(ROOT / "README.md", "python")
    assert len(code.splitlines()) == 4  # with the import and a line between
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {"pd": pd}
    exec(code, names)
    assert "coco_cider" in capsys.readouterr().out
    scores = names["scores"]
    assert isinstance(scores, pd.DataFrame)
    header, *records = map(json.loads, (ROOT / "results" / "records" / "table1.jsonl").read_text().splitlines())
    metrics = {record["run_id"]: record["metrics"] for record in records}
    values = {
        (slot["row"], slot["seed"]): metrics[slot["run_id"]]["coco/cider"]
        for slot in header["slots"]
        if slot["stage"] == "caption"
    }
    seeds = sorted({seed for _, seed in values})
    gaps = [values["LCL", seed] - values["CLIP", seed] for seed in seeds]
    found = (scores["LCL"] - scores["CLIP"]).groupby("column").agg(["mean", "std", "count"]).loc["coco_cider"]
    assert found.tolist() == pytest.approx([mean(gaps), stdev(gaps), len(seeds)], rel=1e-4)


# --- the example


@pytest.mark.usefixtures("example")
def test_the_example_objective_is_its_equation() -> None:
    of = build("siglip")
    batch = batch_for(of, pairs(6))
    losses = of(batch)
    grads = gradients(of, total(losses))
    assert norm(grads, "vision.vit.patch_embed") > 0 and norm(grads, "bias") > 0
    with torch.no_grad():
        v = F.normalize(of.connector(of.encode(batch.images)).pooled, dim=-1)
        t = F.normalize(of.context(batch), dim=-1)
    expected = 0.0
    for i in range(6):
        for j in range(6):
            z = 1 if i == j else -1
            expected -= float(F.logsigmoid(z * (v[i] @ t[j] / 0.07 - 10))) / 6
    assert losses.terms["sigmoid"].mean().item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("example")
def test_the_example_row_reuses_the_others() -> None:
    scale = get_scale("tiny")
    one = build_plan([tables.TABLE1], [0], scale, decided(scale.config), Suite(), DIGESTS)
    more = build_plan([tables.TABLES["table1"]], [0], scale, decided(scale.config), Suite(), DIGESTS)
    added = {run.run_id for run in more.runs} - {run.run_id for run in one.runs}
    assert {run.run_id for run in one.runs} < {run.run_id for run in more.runs} and len(added) == 4
