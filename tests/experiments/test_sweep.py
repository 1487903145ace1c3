"""The command line: what it refuses and how, what one failed row does to the others, and that repeating is safe."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from sweep_helpers import ROOT, arguments, environment, small_suite, statuses, tables, with_corpus

from experiments import status as status_of
from experiments import sweep
from experiments.launching import inline
from experiments.sweep import main
from objectives.clip import CLIP
from results import record
from results.page.markdown import DASH
from results.schema import Status
from transfer.metrics import java


@pytest.fixture(autouse=True)
def suite(monkeypatch: pytest.MonkeyPatch) -> None:
    small_suite(monkeypatch)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No run is started; the run_ids that would have been."""
    asked: list[str] = []
    monkeypatch.setattr(sweep, "get_launcher", lambda name: lambda runs, _: asked.extend(run.run_id for run in runs))
    return asked


def run_folders(runs: Path) -> list[str]:
    return sorted(path.parent.name for path in runs.glob("*/spec.json"))


# ---- what is refused


REFUSED = {
    "a table": (["tabel1"], "unknown table 'tabel1'. Did you mean 'table1'?"),
    "a scale": (["small", "--scale", "tinny"], "unknown scale 'tinny'. Did you mean 'tiny'?"),
    "a row": (["small", "--only", "clipp"], "unknown row of small 'clipp'. Did you mean 'clip'?"),
    "a key": (["small", "--set", "pretrain.image=3"], "unknown key 'image'. Did you mean 'image"),
    "a group": (["small", "--set", "pretrian.images=3"], "Did you mean 'pretrain'?"),
    "an objective": (["small", "--set", "objectives.clpi.x=3"], "no objective 'clpi'; did you mean 'clip'?"),
    "a field of an objective": (["small", "--set", "objectives.lcl.contrast_wieght=3"], "'contrast_weight'?"),
    "a transfer task": (["small", "--set", "transfer.clasify.epochs=3"], "'classify'"),
    "a type": (["small", "--set", "pretrain.images=many"], "'many' is not a whole number"),
    "a value": (["small", "--set", "pretrain.images=0"], "must be at least 1"),
    "no assignment": (["small", "--set", "pretrain.images"], "write key=value"),
    "a row of another scale": (
        ["table1", "--only", "supervised", "--scale", "base16"],
        "at other scales, and not at 'base16'",
    ),
    "workers of a cluster": (["small", "--launcher", "slurm", "--workers", "2"], "--workers 2 is not read"),
    "workers of one process": (["small", "--launcher", "inline", "--workers", "8"], "--workers 8 is not read by"),
    "a row in capitals": (["table5", "--only", "LCLL"], "Did you mean 'lcl'?"),
    "seeds": (["small", "--seeds", "0"], "at least 1, or a range like 10-14, got '0'"),
    "range of seeds": (["small", "--seeds", "14-10"], "got '14-10'"),
    "no rows": (["budget", "--scale", "base16"], "budget has no row at scale 'base16'; add --scale with one of tiny"),
    "seeds by name": (["small", "--seeds", "ten"], "a number of seeds or a range like 10-14, got 'ten'"),
    "workers": (["small", "--workers", "-1"], "--workers is the number of processes, at least 1, got -1"),
    "threads": (["small", "--threads", "0"], "--threads is the number of threads of a process, at least 1, got 0"),
    "a file for tables": (["small", "--out", __file__], f"{__file__} is a file; a folder is needed"),
    "a place below a file": (["small", "--out", f"{__file__}/x/y"], f"{__file__} is a file; a folder is needed"),
    "objectives": (["small", "--objectives", "nowhere"], "nowhere"),
    "a corpus": (["small", "--set", "data.mmc4=nowhere"], "nowhere does not exist"),
    "a set": (["small", "--set", "data.coco=nowhere"], "set it with --set data.coco=FOLDER"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_unknown_is_named_with_a_suggestion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], idle: list[str], what: str
) -> None:
    given, expected = REFUSED[what]
    assert main([*given, "--runs", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert not said.out and not idle and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("wrong", [["small", "--launcher", "slurmm"], [], ["small", "--dry-run", "--collate"]])
def test_what_argparse_refuses_ends_in_2_too(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(wrong)
    assert caught.value.code == 2


def test_a_dry_run_lists_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], idle: list[str]
) -> None:
    assert main(arguments(tmp_path / "runs", "--dry-run", "--seeds", "2")) == 0
    said = capsys.readouterr().out
    assert "18 runs: 18 to run" in said and "s0 s1" in said
    assert not (tmp_path / "runs").exists() and not idle


def test_settings_that_no_row_reads_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], idle: list[str]
) -> None:
    sets = ("objectives.lcl.contrast_weight=0.2", "objectives.clip.label_smoothing=0.1")
    sets += ("full.classify.vision.lr=1", "slurm.time=60")
    more = [part for each in sets for part in ("--set", each)]
    assert main(arguments(tmp_path / "runs", "--dry-run", "--only", "clip", *more)) == 0
    said = "objectives.lcl.contrast_weight, full.classify.vision.lr, slurm.time"
    assert capsys.readouterr().err == f"warning: no run asked for reads {said}\n"


def test_a_dry_run_needs_no_data_at_the_papers_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table in ("table1", "table2", "table5", "table6a", "table6b"):
        assert main([table, "--scale", "base16", "--dry-run", "--runs", str(tmp_path / "runs")]) == 0
        assert "data.mmc4 is not set" in (said := capsys.readouterr().out) or table == "table2", said
    assert not (tmp_path / "runs").exists()


def test_without_data_nothing_is_run_and_every_cell_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], idle: list[str]
) -> None:
    code = main(["table6a", "--scale", "base16", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    assert code == 3 and not idle
    assert "data.mmc4 is not set" in (tmp_path / "out" / "tables" / "table6a-base16.md").read_text()
    assert "runs missing" in capsys.readouterr().out


WRONG_KIND = {
    "mmc4": ("imagenet", "data set with splits"),
    "laion": ("coco", "is no corpus"),
    "coco": ("mmc4", "dataset_coco.json"),
    "imagenet": ("laion", "(train|val) is not a folder"),
    "nocaps": ("coco", "nocaps_val"),
    "retrieval_train": ("imagenet", "holds no .tar files"),
}


@pytest.mark.parametrize("field", WRONG_KIND)
def test_a_folder_of_the_wrong_kind_is_told_before_anything_runs(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], idle: list[str], field: str
) -> None:
    other, expected = WRONG_KIND[field]
    runs = with_corpus(tmp_path / "runs", corpus)
    assert main(arguments(runs, "--set", f"data.{field}={corpus / other}")) == 2
    said = capsys.readouterr().err
    assert re.search(expected, said) and said.count("\n") == 1, said
    assert not idle and not run_folders(runs)


def test_pairs_in_the_place_of_documents_are_told(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], idle: list[str]
) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    assert main(arguments(runs, "--set", f"data.mmc4={corpus / 'laion'}")) == 2
    assert "holds image-text pairs in tars, not MMC4 documents; set it as data.laion" in capsys.readouterr().err
    assert not idle and not run_folders(runs)


def test_documents_without_scores_are_told_how_to_be_read(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], idle: list[str]
) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    unscored = tmp_path / "unscored"
    shutil.copytree(corpus / "mmc4", unscored)
    for packed in unscored.glob("*.zip"):
        with zipfile.ZipFile(packed) as archive:
            lines = [json.loads(line) for line in archive.read(archive.namelist()[0]).splitlines()]
        for line in lines:
            line["similarity_matrix"] = None
            line["image_info"] = [{**info, "matched_sim": None} for info in line["image_info"]]
        (unscored / packed.name.removesuffix(".zip")).write_text("".join(json.dumps(line) + "\n" for line in lines))
        packed.unlink()
    assert main(arguments(runs, "--set", f"data.mmc4={unscored}")) == 2
    assert "--set data.sim_threshold=none" in capsys.readouterr().err
    assert not idle and not run_folders(runs)


def test_a_broken_tar_is_told_before_anything_starts(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], idle: list[str]
) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "00000.tar").write_bytes(b"<html>404 Not Found</html>" * 40)
    assert main(arguments(runs, "--set", f"data.mmc4_pair={broken}", "--only", "clip", "--launcher", "inline")) == 2
    assert "none can be used (bad_tar 1" in capsys.readouterr().err
    assert not idle and not run_folders(runs)


def test_a_tar_with_a_damaged_end_is_used_up_to_there_and_counted(tmp_path: Path, corpus: Path) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    cut = tmp_path / "cut"
    cut.mkdir()
    whole = (corpus / "laion" / "00000.tar").read_bytes()
    (cut / "00000.tar").write_bytes(whole[: len(whole) * 9 // 10])
    main(arguments(runs, "--set", f"data.mmc4_pair={cut}", "--only", "clip", "--launcher", "inline"))
    (path,) = runs.glob("pretrain-clip-*/record.json")
    found = record.read(path)
    assert found.status is Status.DONE, found.reason
    assert found.images_seen == 48
    assert found.coverage["skipped"] == found.coverage["bad_tar"] > 0


def test_without_java_nothing_starts(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], idle: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise java.JavaMissing("no Java runtime: install one")

    monkeypatch.setattr(java, "find_java", nowhere)
    runs = with_corpus(tmp_path / "runs", corpus)
    assert main(arguments(runs)) == 2
    assert capsys.readouterr().err == "error: captions cannot be scored: no Java runtime: install one\n"
    assert not idle and not run_folders(runs)


def test_no_room_for_the_corpus_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], idle: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2 * 10**6))
    assert main(arguments(tmp_path / "runs")) == 1
    said = capsys.readouterr().err
    assert "but 2 MB are free" in said and str(tmp_path / "runs") in said and said.count("\n") == 1
    assert not idle and not run_folders(tmp_path / "runs")
    assert not [path for path in tmp_path.rglob("toyworld-*") if path.is_dir()]


READ = ("mmc4", "imagenet", "retrieval_train", "caption_train", "coco", "flickr30k", "nocaps")  # by the small table


def test_the_embedded_corpus_is_written_only_where_a_run_reads_it(
    tmp_path: Path, corpus: Path, idle: list[str]
) -> None:
    """Folders of one's own for what the table reads are enough; laion and obelics, which it does not, stay unset."""
    given = [word for name in READ for word in ("--set", f"data.{name}={corpus / name}")]
    main([*arguments(tmp_path / "own"), *given])
    assert len(idle) == 9
    assert not list(tmp_path.rglob("toyworld-*"))
    main([*arguments(tmp_path / "most"), *given[:-2]])  # nocaps is the embedded one
    assert [path for path in tmp_path.rglob("toyworld-*") if path.is_dir()]


# ---- one row fails


@pytest.mark.slow
def test_a_failed_run_is_recorded_leaves_the_others_alone_and_is_tried_again(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    with monkeypatch.context() as patch:

        def explode(self: CLIP, batch: object) -> None:
            raise RuntimeError("the flux capacitor is empty\nand more")

        patch.setattr(CLIP, "forward", explode)
        assert main(arguments(runs, "--launcher", "inline")) == 3
    found = statuses(runs)
    assert len(found) == 9
    for name, status in found.items():
        expected = Status.DONE if "clip" not in name else Status.FAILED if "pretrain" in name else Status.BLOCKED
        assert status is expected, name
    (path,) = runs.glob("pretrain-clip-*/record.json")
    assert record.read(path).reason == "RuntimeError: the flux capacitor is empty"
    (path,) = runs.glob("transfer-classify-clip-*/record.json")
    assert "the flux capacitor is empty" in record.read(path).reason
    table = tables(runs)["small.md"].decode()
    assert "the flux capacitor is empty" in table and "(4 runs missing" in capsys.readouterr().out

    again: list[str] = []
    execute = inline.execute
    monkeypatch.setattr(inline, "execute", lambda run_id, *a, **k: (again.append(run_id), execute(run_id, *a, **k)))
    untouched = {name: (runs / name / "record.json").read_bytes() for name in found if "clip" not in name}
    assert main(arguments(runs, "--launcher", "inline")) == 0
    assert set(again) == {name for name in found if "clip" in name}
    assert untouched == {name: (runs / name / "record.json").read_bytes() for name in untouched}
    assert set(statuses(runs).values()) == {Status.DONE}
    assert "flux" not in tables(runs)["small.md"].decode()


@pytest.mark.slow
def test_a_corrupt_record_is_left_out_and_its_run_done_again(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], idle: list[str]
) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    main(arguments(runs))
    for name, text in zip(run_folders(runs), ("", '{"run_id": ', "[]", '{"schema_version": 99}'), strict=False):
        (runs / name / "record.json").write_text(text)
    capsys.readouterr()
    idle.clear()
    assert main(arguments(runs)) == 3
    said = capsys.readouterr().err
    assert said.count("warning: ") >= 4 and "schema version 99" in said
    assert len(idle) == 9


# ---- as a user runs it


@pytest.mark.slow
def test_every_cell_of_a_finished_sweep_is_filled(reference: tuple[Path, dict[str, bytes]]) -> None:
    runs, found = reference
    assert set(statuses(runs).values()) == {Status.DONE} and len(statuses(runs)) == 9
    text = found["small.md"].decode()
    for label in ("CLIP", "LCL"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} ")][:1]
        assert DASH not in line.split("|")[4:], line
    assert "TINY SCALE, not comparable with the paper" in text
    assert not list(runs.glob("*/checkpoint"))


@pytest.mark.slow
def test_running_again_reuses_everything(
    reference: tuple[Path, dict[str, bytes]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, expected = reference
    monkeypatch.setattr(sweep, "get_launcher", None)  # would fail
    assert main(arguments(runs)) == 0
    assert tables(runs) == expected
    capsys.readouterr()
    assert main(arguments(runs, "--dry-run")) == 0
    assert "9 runs: 9 done and reused" in capsys.readouterr().out
    assert status_of.main(["small", "--runs", str(runs)]) == 0
    assert "9 runs: 9 done (local, from " in capsys.readouterr().out


@pytest.mark.slow
def test_the_launchers_agree(tmp_path: Path, corpus: Path, reference: tuple[Path, dict[str, bytes]]) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    assert main(arguments(runs, "--launcher", "inline")) == 0
    assert tables(runs) == reference[1]


@pytest.mark.slow
def test_a_worker_does_run_after_run(reference: tuple[Path, dict[str, bytes]]) -> None:
    runs, _ = reference
    pids = {json.loads(path.read_text())["pid"] for path in runs.glob("*/progress.json")}
    assert len(list(runs.glob("*/progress.json"))) > 1 and len(pids) == 1


@pytest.mark.slow
def test_a_run_does_not_depend_on_the_runs_before_it(
    tmp_path: Path, corpus: Path, reference: tuple[Path, dict[str, bytes]]
) -> None:
    """In the reference each run had the same process as all before it; here each has one of its own."""
    first, _ = reference
    runs = with_corpus(tmp_path / "runs", corpus)
    launched = [sys.executable, "-c", "import sweep_helpers; sweep_helpers.alone()", *arguments(runs)]
    subprocess.run(launched, cwd=ROOT, env=environment(), check=True, timeout=400)
    assert set(statuses(runs)) == set(statuses(first))
    for name in statuses(first):
        one, other = record.read(first / name / "record.json"), record.read(runs / name / "record.json")
        assert one.metrics == other.metrics, name
        assert one.env["threads"] == other.env["threads"], name
        for file in ("encoder.safetensors", "language.safetensors", "metrics.jsonl", "items.jsonl"):
            assert (first / name / file).exists() == (runs / name / file).exists()
            if (first / name / file).exists():
                assert (first / name / file).read_bytes() == (runs / name / file).read_bytes(), f"{name}/{file}"


@pytest.mark.parametrize("wrong", [[], ["--help"], ["tabel1"], ["table1", "--set", "pretrain.image=3"]])
def test_help_and_typos_do_not_wait_for_torch(wrong: list[str]) -> None:
    program = (
        "import sys\nsys.modules['torch'] = None  # importing it fails\n"
        "from experiments.sweep import main\nsys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *wrong], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == (0 if wrong == ["--help"] else 2) and "Traceback" not in done.stderr, done.stderr


def test_help_says_how_to_begin() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.sweep", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "python -m experiments.sweep table1" in done.stdout and "Exit codes" in done.stdout
