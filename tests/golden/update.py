"""Writes the golden losses anew: `python tests/golden/update.py --why "the temperature starts at 0.07"`.

Run it after a deliberate change of what is computed, read the difference, and commit it with the reason, which goes
into the file and belongs into the changelog. `--only NAME` updates one objective and leaves the others as they are.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]  # as pytest has it

import torch
from golden_helpers import FILE, Curve, corpus_digest, curve, golden_place

from objectives.registry import available


def main() -> None:
    """Train every objective for a few steps and write down its losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--why", required=True, help="what was changed, for the file and the changelog")
    parser.add_argument("--only", action="append", choices=available(), help="leave the other objectives as they are")
    options = parser.parse_args()
    held = json.loads(FILE.read_text())["losses"] if options.only else {}
    with tempfile.TemporaryDirectory() as folder:
        place = golden_place(Path(folder))
        losses = held | {name: _rounded(curve(place, name)) for name in options.only or available()}
        made = {"why": options.why, "torch": torch.__version__, "corpus": corpus_digest(place), "losses": losses}
    FILE.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")


def _rounded(rows: Curve) -> list[dict[str, float]]:
    return [{term: float(f"{value:.7g}") for term, value in row.items()} for row in rows]


if __name__ == "__main__":
    main()
