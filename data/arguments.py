"""What several commands of data take on their command lines."""

import argparse
import math


def threshold(text: str) -> float | None:
    """`Rules.sim_threshold` as it is written: a number, or none. Raises ArgumentTypeError for NaN and infinities."""
    if text == "none":
        return None
    if not math.isfinite(number := float(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number that similarities can be compared with")
    return number
