"""Benchmarks by name."""

from collections.abc import Mapping

from transfer.dialogue.scoring.base import Benchmark, BenchmarkName
from transfer.dialogue.scoring.gqa import GQA
from transfer.dialogue.scoring.mmbench import MMBench
from transfer.dialogue.scoring.mme import MME
from transfer.dialogue.scoring.pope import POPE
from transfer.dialogue.scoring.scienceqa import ScienceQA
from transfer.dialogue.scoring.seed import SEED
from transfer.dialogue.scoring.vizwiz import VizWiz
from transfer.dialogue.scoring.vqav2 import VQAv2

BENCHMARKS: Mapping[BenchmarkName, type[Benchmark]] = {
    "vqav2": VQAv2,
    "gqa": GQA,
    "vizwiz": VizWiz,
    "scienceqa": ScienceQA,
    "pope": POPE,
    "mme": MME,
    "mmbench": MMBench,
    "seed": SEED,
}
