"""The two stages of multimodal dialogue as runs: the first once for an encoder, the second in the mode asked for.

Source: LCL paper 4.3 and A.2. Stage 1 trains the MLP alone whatever stage 2 trains, so frozen and full rows share it;
without an encoder there is nothing to align.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.configuration import overrides
from experiments.configuration.config import RunConfig
from experiments.configuration.dialogue import STAGES, StageName, key
from experiments.planning.catalogue import Catalogue
from experiments.planning.specs import ABSENT, DialogueSpec, PlannedRun, written
from results.canonical import plain
from results.schema import BLIND, FULL, Mode


@dataclass(frozen=True)
class Start:
    """What dialogue starts from: runs that must be done before, and why they cannot be."""

    inputs: Mapping[str, str]  # encoder (none in mode "blind"), and text_lm or llm
    needs: tuple[str, ...]
    problem: str = ""


def planned_stages(
    config: RunConfig,
    catalogue: Catalogue,
    digests: Mapping[str, str],
    start: Start,
    *,
    mode: Mode,
    seed: int,
    benchmarks: Sequence[str],
) -> list[PlannedRun]:
    """Stage 1, unless the mode is blind, and stage 2.

    benchmarks: those that answers are wanted for; of them the ones that are there are asked.
    digests: of data, as `experiments.configuration.dialogue` calls them.
    """
    recipes = {name: _recipe(name, config, catalogue) for name in STAGES}
    if len({recipe.select_layer for recipe in recipes.values()}) > 1:
        layers = " and ".join(f"dialogue.{name}.select_layer={recipe.select_layer}" for name, recipe in recipes.items())
        raise overrides.ConfigError(f"stage 2 goes on with the MLP of stage 1, but {layers}; set both to the same")
    held = [name for name in sorted(benchmarks) if key(name) in digests]
    absent = "" if key("align") in digests else "data.dialogue is not set"
    asked = tuple(sorted(benchmarks) if absent else held)
    none = f"data.dialogue holds none of {', '.join(sorted(benchmarks))}"
    problem = start.problem or absent or ("" if asked else none)

    def run(name: StageName, of: Mode, more: Mapping[str, str], scored: tuple[str, ...], waits: tuple[str, ...]) -> Any:
        recipe = recipes[name]
        if name == "tune" and of != FULL:  # how the encoder is trained is nothing to a run that does not train it
            recipe = replace(recipe, vision=catalogue.stage(name).default.vision)
        spec = DialogueSpec(
            protocol=catalogue.stage(name).protocol,
            stage=name,
            mode=of,
            recipe=plain(recipe),
            precision=config.pretrain.optim.precision,
            language=config.language.dialogue,
            benchmarks=scored,
            seed=seed,
            inputs={**start.inputs, "data": digests.get(key(name), ABSENT), **more},
        )
        return PlannedRun(
            spec=spec,
            written=written(spec, {"recipe": recipe}),
            needs=(*start.needs, *waits),
            problem=problem,
            used_by=(),
            weight=_WEIGHTS["align" if name == "align" else of],
        )

    tests = {name: digests.get(key(name), ABSENT) for name in asked}
    if mode == BLIND:  # there is no picture to align
        return [run("tune", BLIND, tests, asked, ())]
    align = run("align", "frozen", {}, (), ())
    return [align, run("tune", mode, {"align": align.run_id, **tests}, asked, (align.run_id,))]


# The longest start first, but for a first stage, which others wait for.
_WEIGHTS = {"align": 40, FULL: 30, "frozen": 20, BLIND: 20}


def _recipe(name: StageName, config: RunConfig, catalogue: Catalogue) -> Any:
    return overrides.change(catalogue.stage(name).default, config.dialogue.get(name, {}), prefix=f"dialogue.{name}")
