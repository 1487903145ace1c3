"""The launchers by name; importing one imports torch, asking for the names does not."""

import importlib

from experiments.launching.machine import Launcher

NAMES = ("inline", "local", "slurm")


def get_launcher(name: str) -> Launcher:
    """The launcher of that name, which is that of its module."""
    found: Launcher = getattr(importlib.import_module(f"experiments.launching.{name}"), name)
    return found
