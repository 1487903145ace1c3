"""Whether cached features may take the disk they would, said before a picture is decoded or anything is written.

A budget only refuses. Which pictures a transfer reads (`transfer.<task>.pictures`) decides its numbers, so the other
protocol is named and never taken instead. Sizes are those of transfer/features.py: all output tokens of every item, of
each encoder whose features stay. Full transfer keeps none: its encoder is nobody else's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from experiments.configuration.corpora import get_task
from experiments.configuration.overrides import ConfigError
from experiments.configuration.place import Place
from experiments.configuration.typed import from_plain
from experiments.planning.specs import PlannedRun, PretrainSpec, Spec, TransferSpec, load_spec
from experiments.running.training import decided
from experiments.running.world import entries, load_encoder
from results.schema import BLIND, FULL

GB = 10**9
Wanted = tuple[str, str, bool]  # encoder, field of DataConfig, whether its training split


def refuse_large(missing: Sequence[PlannedRun], place: Place) -> None:
    """Raises ConfigError where the features these runs would keep are larger than `data.features_gb`.

    Features that are there already count too: whether they are is not known before pictures are read.
    """
    if place.data.features_gb is None:
        return
    specs: Mapping[str, Spec] = {run.run_id: run.spec for run in missing}
    frozen = [s for s in specs.values() if isinstance(s, TransferSpec) and s.mode not in (FULL, BLIND)]
    tasks: dict[Wanted, str] = {}
    widths: dict[str, int] = {}
    for spec in frozen:
        encoder = spec.inputs["encoder"]
        if encoder not in widths:
            widths[encoder] = _bytes_of_item(encoder, specs, place, spec)
        data = get_task(spec.task)
        tasks |= {(encoder, name, False): spec.task for name in data.tests}
        if spec.recipe["pictures"] == "cached":
            tasks[encoder, data.train, True] = spec.task
    counts = {(name, training): entries(place, name, training) for _, name, training in tasks}
    sizes = {wanted: widths[wanted[0]] * counts[wanted[1:]] for wanted in tasks}
    if sum(sizes.values()) <= place.data.features_gb * GB:
        return
    parts, training = Counter[str](), Counter[str]()
    for wanted, size in sizes.items():
        _, name, is_training = wanted
        parts[f"data.{name} ({'training' if is_training else 'test'})"] += size
        if is_training:
            training[tasks[wanted]] += size
    other = ""
    for task, _ in training.most_common(1):
        other = f"read augmented pictures, which keep none: --set transfer.{task}.pictures=augmented; or "
    said = ", ".join(f"{name} {size / GB:,.1f} GB" for name, size in parts.most_common())
    raise ConfigError(
        f"cached features of {len(widths)} encoders would take up to {sum(sizes.values()) / GB:,.1f} GB, and "
        f"data.features_gb allows {place.data.features_gb:g}: {said}. Nothing was written; {other}"
        "allow more with --set data.features_gb=N"
    )


def _bytes_of_item(encoder: str, specs: Mapping[str, Spec], place: Place, spec: TransferSpec) -> int:
    """Bytes of one item's tokens in the precision they are stored in."""
    from backbones.sizes import Size
    from transfer.features import bytes_of_item

    made_by = specs.get(encoder) or load_spec(place.runs / encoder)
    if isinstance(made_by, PretrainSpec):
        size: Size = from_plain(Size, made_by.model, "model")
        tokens, width = 1 + size.vision.num_patches, size.vision.width  # a class token before them
    else:
        tower = load_encoder(place, encoder).module
        tokens, width = tower.num_prefix_tokens + tower.num_patches, tower.width
    return bytes_of_item(tokens, width, decided(spec.precision))
