"""Encoders from elsewhere as runs: their weights are copied into a run folder, and every transfer finds them there."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from backbones.foreign import source
from backbones.foreign.source import Preprocess
from experiments.configuration.place import Place
from experiments.planning.specs import EncoderSpec, PlannedRun, written
from experiments.running.outcome import Outcome, Owned
from experiments.running.world import ENCODER_FILE, load_encoder, save_encoder
from results.canonical import plain
from transfer.encoder import fingerprint

PROTOCOL = 1  # bump when equal specs would compute other tokens


def take_in(name: str, weights: Path | None, place: Place, language: Any) -> PlannedRun:
    """Read an encoder (`backbones.foreign.source.load`) and put its weights into the folder of its run.

    language: LanguageSize of tasks that read with a model from scratch. Raises ValueError as `load` does.
    """
    found = source.load(name, weights)
    library, architecture = source.parse(name)
    known = architecture.partition("/")[0] if library in ("open_clip", "timm") else _kind(found.architecture)
    spec = EncoderSpec(
        protocol=PROTOCOL,
        source=f"{library}:{known}",
        architecture=plain(found.architecture),
        preprocess=_said(found.preprocess),
        language=plain(language),
        inputs={"weights": fingerprint(found.tower)[:16]},
    )
    run = PlannedRun(spec=spec, written=written(spec, {}), needs=(), problem="", used_by=(), weight=0)
    folder = place.runs / run.run_id
    run.written.save(folder)
    if not (folder / ENCODER_FILE).exists():
        save_encoder(folder, found.tower)
    return run


def taken_in(spec: EncoderSpec, place: Place, run: Owned) -> Outcome:
    """Check that the weights in the folder are those of the spec, and that they build its encoder.

    Raises RuntimeError where they are others.
    """
    held = fingerprint(load_encoder(place, run.folder.name).module)[:16]
    if held != spec.inputs["weights"]:
        raise RuntimeError(
            f"{run.folder / ENCODER_FILE} holds weights {held}, not {spec.inputs['weights']}; delete that file "
            "and evaluate again"
        )
    return Outcome(data_digest=held)


def _said(preprocess: Preprocess) -> dict[str, Any]:
    """Its values; how pictures become square only where they are squashed, as older runs are named without it."""
    values = asdict(preprocess)
    if preprocess.resize == Preprocess.resize:
        del values["resize"]
    return values


def _kind(architecture: Any) -> str:
    """What a model from a folder is called: its kind and width, as folders have any name."""
    inner = architecture.get("size") or architecture["config"]
    width = inner.get("width") or inner["hidden_size"]
    return f"{inner.get('model_type', 'vit')}-{width}-{inner['patch_size']}"
