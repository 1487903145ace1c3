"""Writes the golden losses anew: `python tests/golden/update.py --why "the temperature starts at 0.07"`.

Run it after a deliberate change of what is computed, read the difference, and commit it with the reason, which goes
into the file and belongs into the changelog. Losses that are still golden are left as they are.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))  # both as pytest has them

import torch
from golden_helpers import FILE, Curve, corpus_digest, curve, golden_place

from objectives.registry import available

CLOSE = 1e-5  # relative; another machine rounds otherwise


def main() -> None:
    """Train every objective for a few steps and write down the losses that changed."""
    parser = argparse.ArgumentParser(description="Write the golden losses anew.")
    parser.add_argument("--why", required=True, help="what was changed, for the file and the changelog")
    why = parser.parse_args().why
    held: dict[str, Curve] = json.loads(FILE.read_text())["losses"] if FILE.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        place = golden_place(Path(folder))
        new = {name: [_rounded(row) for row in curve(place, name)] for name in available()}
        changed = [name for name in new if not _same(new[name], held.get(name, []))]
        losses = {name: new[name] if name in changed else held[name] for name in new}
        made = {"why": why, "torch": torch.__version__, "corpus": corpus_digest(place), "losses": losses}
    FILE.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
    print(f"{FILE}: changed {', '.join(changed) or 'nothing'}")


def _rounded(row: Mapping[str, float]) -> dict[str, float]:
    return {term: float(f"{value:.7g}") for term, value in row.items()}


def _same(a: Curve, b: Curve) -> bool:
    return len(a) == len(b) and all(
        mine.keys() == theirs.keys() and all(math.isclose(mine[t], theirs[t], rel_tol=CLOSE) for t in mine)
        for mine, theirs in zip(a, b, strict=True)
    )


if __name__ == "__main__":
    main()
