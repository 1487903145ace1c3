"""The architecture page as a test: who may import whom, what must work without torch, and what no file may do."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("backbones", "benchmarks", "data", "experiments", "objectives", "results", "transfer")
# What a package may import of ours besides itself: whole packages, or single modules of them.
ALLOWED: Mapping[str, tuple[str, ...]] = {
    "experiments": ("backbones", "data", "objectives", "results", "transfer"),
    "benchmarks": ("backbones", "data", "experiments", "objectives", "results", "transfer"),
    "transfer": ("backbones", "data.batch", "data.dialogue", "data.seeds", "objectives.functional"),
    "objectives": ("backbones", "data.batch", "data.seeds"),
    "backbones": ("data.seeds",),
    "data": (),
    "results": (),
}
# Planning, collating and reading results are for machines without torch; a reader of documents is small.
WITHOUT_TORCH = (
    *("results", "experiments.configuration", "experiments.planning", "experiments.tables"),
    *("data.loading.reader", "data.corpora", "data.readers.rematch", "data.readers.mmc4_pair", "data.loading.held_out"),
)
# The rooms of experiments/, each of which may use those before it.
ROOMS = ("configuration", "planning", "running", "launching", "publishing", "command")
# What a room of data/ may use of the others; the ground floor is open to all of them.
DATA_ROOMS = {
    "readers": (),
    "loading": ("readers",),
    "convert": ("loading", "readers"),
    "toyworld": (),
    "audit": ("loading",),
    "dialogue": ("loading",),
}
# The rooms of results/, each of which may use those before it; the ground floor is open to all of them.
RESULTS_ROOMS = ("details", "statistics", "page", "html")
OPEN = {
    "data": DATA_ROOMS,
    "results": {room: RESULTS_ROOMS[:place] for place, room in enumerate(RESULTS_ROOMS)},
}
# What results may use: numpy resamples test items, pandas makes the long form, jinja2 writes HTML and LaTeX, scipy and
# statsmodels test.
LIBRARIES_OF_RESULTS = {"jinja2", "markupsafe", "numpy", "pandas", "scipy", "statsmodels"} | set(
    sys.stdlib_module_names
)


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by dotted name."""
    names = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


SOURCES = {name: path for package in PACKAGES for name, path in modules(package).items()}


def imports(module: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module if path.stem == "__init__" else module.rpartition(".")[0]
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:  # `from data import seeds` imports data.seeds
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in SOURCES or base not in SOURCES else base


def within(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(f"{allowed}.")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_the_architecture_allows(package: str) -> None:
    may = (package, *ALLOWED[package])
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for module, path in modules(package).items()
        for line, name in imports(module, path)
        if name.partition(".")[0] in PACKAGES and not any(within(name, each) for each in may)
    ]
    assert not wrong, f"{'; '.join(wrong)}. {package} may import {', '.join(may)}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_experiments_uses_those_before_it(room: str) -> None:
    may = [f"experiments.{each}" for each in ROOMS[: ROOMS.index(room) + 1]]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for module, path in SOURCES.items()
        if within(module, f"experiments.{room}")
        for line, name in imports(module, path)
        if within(name, "experiments") and not any(within(name, each) for each in may)
    ]
    assert not wrong, f"{'; '.join(wrong)}. {room} may import {', '.join(may)}"


@pytest.mark.parametrize(("package", "room"), [(package, room) for package in OPEN for room in OPEN[package]])
def test_a_room_uses_the_ground_floor_and_what_is_declared(package: str, room: str) -> None:
    rooms = OPEN[package]
    shut = [f"{package}.{each}" for each in rooms if each not in (room, *rooms[room])]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for module, path in SOURCES.items()
        if within(module, f"{package}.{room}")
        for line, name in imports(module, path)
        if any(within(name, each) for each in shut)
    ]
    assert not wrong, f"{'; '.join(wrong)}. {package}.{room} may use {', '.join(rooms[room]) or 'no other room'}"


@pytest.mark.parametrize("package", OPEN)
def test_every_room_is_declared(package: str) -> None:
    assert {path.parent.name for path in ROOT.glob(f"{package}/*/__init__.py")} == OPEN[package].keys()


def test_every_package_has_its_rule() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= ALLOWED.keys() == set(PACKAGES)


def test_the_rule_sees_every_way_to_import(tmp_path: Path) -> None:
    path = tmp_path / "lazy.py"
    path.write_text(
        "import data.loading.loader as loader\nfrom data import seeds\n"
        "from data.batch import Batch\nfrom . import lcl\n"
        "def later():\n    from transfer.base import TransferTask\n"
    )
    found = [name for _, name in imports("objectives.lazy", path)]
    assert found == ["data.loading.loader", "data.seeds", "data.batch", "objectives.lcl", "transfer.base"]


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    edges = {
        module: {name for _, name in imports(module, path) if name in SOURCES and name != module}
        for module, path in SOURCES.items()
    }
    state: dict[str, int] = {}

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert state.get(module) != 1, " -> ".join([*above[above.index(module) :], module])
        if module not in state:
            state[module] = 1
            for name in sorted(edges[module]):
                visit(name, (*above, module))
            state[module] = 2

    for module in sorted(SOURCES):
        visit(module, ())


def test_results_uses_the_libraries_it_declares_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for module, path in modules("results").items()
        for line, name in imports(module, path)
        if name.partition(".")[0] not in LIBRARIES_OF_RESULTS | {"results"}
    ]
    assert not wrong, f"{'; '.join(wrong)}. results may import {', '.join(sorted(THIRD_PARTY_OF_RESULTS))} and python's"


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_runs_without_torch(package: str) -> None:
    names = [name for name in SOURCES if within(name, package)]
    program = (
        f"import importlib, sys\nsys.modules['torch'] = None  # importing it fails\n"
        f"for name in {names!r}:\n    importlib.import_module(name)\n"
        f"assert sys.modules['torch'] is None\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- what no file may do (field study E.3: nothing that comes from data or a checkpoint is ever executed)

BANNED_MODULES = {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib", "cloudpickle"}


def offences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, f"imports {n}") for n in names if n.partition(".")[0] in BANNED_MODULES)
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "catches everything with a bare except"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if given.get("weights_only") == "False":
            yield node.lineno, "passes weights_only=False"
        if called == "torch.load" and given.get("weights_only") != "True":
            yield node.lineno, "calls torch.load without weights_only=True"
        if called in ("eval", "exec", "os.system") or called.endswith((".extractall", "unpack_archive")):
            yield node.lineno, f"calls {called}"
        if called in ("np.load", "numpy.load") and given.get("allow_pickle") == "True":
            yield node.lineno, f"calls {called} with allow_pickle=True"
        if given.get("shell") == "True":
            yield node.lineno, "starts a shell"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_code_comes_from_data_or_checkpoints(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {what}"
        for path in modules(package).values()
        for line, what in offences(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not wrong, "; ".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "model.load(path, weights_only=False)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "eval(text)",
    ],
)
def test_the_ban_is_seen(line: str) -> None:
    assert list(offences(ast.parse(line)))
    assert not list(offences(ast.parse("torch.load(path, weights_only=True); module.eval(); archive.extract(name)")))
