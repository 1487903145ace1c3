"""Every public function, class and method is used by the suite itself: what only tests use is dead code with a guard.

A name counts as used where any other place of the packages, or a command in pyproject.toml, says it: as a name, an
attribute or a short text. That is generous, as a name said for another thing hides one that nobody uses.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("backbones", "benchmarks", "data", "experiments", "objectives", "results", "transfer")
# Called by a library under a name that it chose.
CALLED_BY_LIBRARIES = {
    "forward": "torch.nn.Module.__call__",
    "handle_data": "html.parser.HTMLParser",
    "handle_startendtag": "html.parser.HTMLParser",
    "parse_html_declaration": "html.parser.HTMLParser",
}


def sources() -> dict[str, ast.Module]:
    """Every file of the packages by its path."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public functions, classes and methods of a file, but those a decorator registers."""
    for node in ast.walk(tree):
        for each in node.body if isinstance(node, ast.Module | ast.ClassDef) else ():
            if isinstance(each, ast.FunctionDef | ast.ClassDef) and not each.name.startswith("_"):
                calls = [d.func for d in each.decorator_list if isinstance(d, ast.Call)]
                if "register" not in map(ast.unparse, calls):
                    yield each


def words(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names, attributes and short texts that a file says, with their lines; an import alone is no use."""
    for each in ast.walk(tree):
        if isinstance(each, ast.Name):
            yield each.id, each.lineno
        elif isinstance(each, ast.Attribute):
            yield each.attr, each.lineno
        elif isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.isidentifier():
            yield each.value, each.lineno


def unused(found: Mapping[str, ast.Module], commands: str) -> list[str]:
    """Definitions whose name nothing outside themselves says."""
    said: dict[str, list[tuple[str, int]]] = {}
    for path, tree in found.items():
        for name, line in words(tree):
            said.setdefault(name, []).append((path, line))
    lost = []
    for path, tree in found.items():
        for node in definitions(tree):
            own = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            used = any(where != path or line not in own for where, line in said.get(node.name, ()))
            if not used and node.name not in CALLED_BY_LIBRARIES and not re.search(rf"\b{node.name}\b", commands):
                lost.append(f"{path}:{node.lineno} {node.name}")
    return lost


def test_no_public_function_or_class_is_used_by_tests_alone() -> None:
    scripts = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.scripts]")[2].partition("[")[0]
    assert not unused(sources(), scripts), "use them, remove them, or say in CALLED_BY_LIBRARIES who calls them"


def test_what_nothing_uses_would_be_noticed() -> None:
    code = """
class Kept:
    def used(self): return 1
    def lost(self): return self.lost
    def forward(self): ...
def also_lost(): return also_lost()
def by_text(): ...
def by_command(): ...
@register("x")
class Registered: ...
print(Kept().used(), "by_text")
"""
    user = "from data.kept import also_lost"
    files = {"data/kept.py": ast.parse(code), "data/user.py": ast.parse(user)}
    assert unused(files, 'x = "data.kept:by_command"') == ["data/kept.py:6 also_lost", "data/kept.py:4 lost"]
