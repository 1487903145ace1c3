"""What a setting means, in the words beside its field: comments of dataclasses are read, not said again elsewhere."""

import ast
import inspect
import io
import tokenize
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from itertools import takewhile
from textwrap import dedent


@cache
def meanings(cls: type) -> Mapping[str, str]:
    """The comment of each field: on its lines, or else on those just above. A field that has none is left out.

    Of a field that a subclass declares anew without a comment, that of the class above holds.
    """
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__[:-1]):
        found |= _own(each)
    return {f.name: found[f.name] for f in fields(cls) if f.name in found}


def about(cls: type) -> str:
    """The first paragraph of a class's docstring, on one line."""
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def _own(cls: type) -> dict[str, str]:
    source = dedent(inspect.getsource(cls))
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    alone = {line for line in comments if source.splitlines()[line - 1].lstrip().startswith("#")}
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno is not None:
            lines = [line for line in range(node.lineno, node.end_lineno + 1) if line in comments]
            if not lines:
                lines = list(takewhile(alone.__contains__, range(node.lineno - 1, 0, -1)))[::-1]
            if lines:
                found[node.target.id] = " ".join(comments[line] for line in lines)
    return found
