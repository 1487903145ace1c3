"""What pre-training takes on clusters declared here: nodes, micro-batch, memory of a GPU and hours, by a model.

The model of docs/scale.md. A step takes its floating-point operations at the share of the peak that the LCL paper's own
bill implies, and the exchange of gradients and features at the bandwidth of the slowest link. A GPU holds weights,
gradients and two moments in fp32 (its part of them where they are sharded), what the backward pass of a micro-batch
needs, and its rows of the logits of the contrast. Nothing of it is measured on these clusters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from experiments.configuration.distributed import DistributedConfig, Strategy
from experiments.planning.flops import Sizes, Work
from experiments.planning.plan import Plan
from experiments.planning.price import closed_form, work_of
from experiments.planning.specs import PlannedRun, PretrainSpec
from results.schema import RunRecord, Status

# Of the peak: LCL at large14 by the closed form, in the paper's 61,440 hours of A800 (A.1); a test holds it to that.
UTILISATION = 0.21
STATE = 16  # bytes of a trained parameter: weight, gradient and two moments, fp32
ACTIVATIONS = (
    34  # bytes of a token, a unit of width and a layer, in bf16 without stored scores (Korthikanti et al. 2022)
)
LOGITS = 10  # bytes of a token and an entry of the vocabulary: bf16, fp32 and the gradient
CONTRAST = 2 * 2 * 4  # bytes of a row and a column: logits of both directions and as much behind them, fp32
FILLED = 0.9  # of a GPU's memory, at most
SHOWN = (1, 8, 64, 512)  # GPUs, where distributed.ranks says nothing
SECOND_PASS = 4 / 3  # a step in micro-batches runs forward twice


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """One kind of node, and the network between nodes."""

    name: str
    gpus: int  # of a node
    memory: float  # bytes of a GPU
    peak: float  # FLOP/s of a GPU, dense bf16
    inside: float  # bytes/s of a GPU to others of its node
    between: float  # bytes/s of a GPU to other nodes


# Sources: NVIDIA's data sheets. A800 SXM: 312 TFLOP/s, NVLink 400 GB/s; DGX A100: 200 Gb/s a GPU. H100 SXM: 989
# TFLOP/s, NVLink 900 GB/s; DGX H100: 400 Gb/s a GPU.
CLUSTERS = (
    Cluster(name="A800", gpus=8, memory=80e9, peak=312e12, inside=400e9, between=25e9),
    Cluster(name="H100", gpus=8, memory=80e9, peak=989e12, inside=900e9, between=50e9),
)


@dataclass(frozen=True)
class Fit:
    """A run on so many GPUs of a cluster."""

    micro_batch: int | None  # documents at once; None: all of a rank's
    memory: float  # bytes of a GPU
    seconds: float | None  # of the run; None: its objective has no formula


def on_clusters(plan: Plan, records: Iterable[RunRecord], asked: DistributedConfig) -> str:
    """A line for each cluster and number of GPUs: what the pre-trainings that are not done take, one after the other.

    asked: of one rank a few numbers of GPUs are shown.
    """
    done = {record.run_id for record in records if record.status is Status.DONE}
    runs = [run for run in plan.runs if isinstance(run.spec, PretrainSpec) and run.spec.images]
    missing = [run for run in runs if run.run_id not in done]
    counts = SHOWN if asked.ranks == 1 else (asked.ranks,)
    lines = (
        [_line(cluster, count, asked.strategy, missing) for cluster in CLUSTERS for count in counts] if missing else []
    )
    how = "the model of docs/scale.md" + ("" if asked.strategy == "ddp" else f" with {asked.strategy}")
    head = f"{len(missing)} pre-trainings on clusters, by {how} at {UTILISATION:.0%} of the peak:"
    return "\n".join([head, *lines]) if lines else ""


def _line(cluster: Cluster, gpus: int, strategy: Strategy, runs: Sequence[PlannedRun]) -> str:
    nodes = -(-gpus // cluster.gpus)
    where = f"- {gpus} {cluster.name} on {nodes} node{'s' * (nodes > 1)}"
    fits = [fit(run.spec, cluster, gpus, strategy) for run in runs if isinstance(run.spec, PretrainSpec)]
    found = [each for each in fits if each is not None]
    if len(found) < len(fits):
        return f"{where}: {len(fits) - len(found)} of {len(fits)} need more memory than {cluster.memory / 1e9:.0f} GB"
    parts = [each.micro_batch for each in found if each.micro_batch is not None]
    micro = f"pretrain.micro_batch={min(parts)}" if parts else "no micro-batch needed"
    seconds = [each.seconds for each in found if each.seconds is not None]
    unknown = "" if len(seconds) == len(found) else f" for {len(seconds)} of {len(found)} runs"
    return (
        f"{where}: {micro}, {max(each.memory for each in found) / 1e9:.0f} of {cluster.memory / 1e9:.0f} GB a GPU, "
        f"{sum(seconds) / 3600:,.1f} hours, {gpus * sum(seconds) / 3600:,.0f} GPU hours{unknown}"
    )


def fit(spec: PretrainSpec, cluster: Cluster, gpus: int, strategy: Strategy) -> Fit | None:
    """How a run fits so many GPUs; None where not even one document at a time does."""
    sizes, work = work_of(spec)
    documents = max(rows for rows, _ in work.rows.values()) if work.rows else work.images
    share = max(1, documents // gpus)
    sharded = sharded_parameters(sizes, strategy)
    fixed = STATE * (parameters(sizes) - sharded + sharded / gpus) + CONTRAST * work.contrasted**2 / gpus
    each = activations(sizes, work) / documents
    room = int((FILLED * cluster.memory - fixed) / each)
    if room < 1:
        return None
    micro = None if room >= share else 1 << (room.bit_length() - 1)
    compute = closed_form(spec)
    seconds = None
    if compute is not None:
        once = compute / (gpus * cluster.peak * UTILISATION) * (1 if micro is None else SECOND_PASS)
        link = cluster.inside if gpus <= cluster.gpus else cluster.between
        # Sharded weights are gathered for each pass, forward, again and backward, and their gradients reduced after it.
        moves = 3 if micro is None else 4 * -(-share // micro)
        seconds = once + spec.steps * exchanged(sizes, work, gpus, strategy, moves) / link
    return Fit(micro, fixed + each * (micro or share), seconds)


def exchanged(sizes: Sizes, work: Work, gpus: int, strategy: Strategy, moves: int) -> float:
    """Bytes of a rank and a step, in fp32: gradients by ring all-reduce; features by all-gather, theirs back again.

    moves: all-gathers of sharded weights and reduce-scatters of their gradients, with one pass through the language
    model.
    """
    features = 4 * work.contrasted * 2 * sizes.width
    sharded = sharded_parameters(sizes, strategy)
    reduced = 2 * 4 * (parameters(sizes) - sharded)
    return (reduced + moves * 4 * sharded + 2 * features) * (gpus - 1) / gpus


def parameters(sizes: Sizes) -> float:
    """Weights of both backbones, without biases and norms."""
    patches = 3 * sizes.vision["patch_size"] ** 2 * sizes.vision_width
    tokens = (sizes.vocabulary + sizes.language["positions"]) * sizes.width
    return float(_of_blocks(sizes) + patches + tokens)


def sharded_parameters(sizes: Sizes, strategy: Strategy) -> float:
    """Those that each GPU holds a part of: the blocks of both backbones, or none."""
    match strategy:
        case "ddp":
            return 0.0
        case "fsdp2":
            return _of_blocks(sizes)


def _of_blocks(sizes: Sizes) -> float:
    encoder = 12 * sizes.vision["depth"] * sizes.vision_width**2
    language = sizes.language["depth"] * (4 * sizes.width**2 + 2 * sizes.width * sizes.language["ffn"])
    return float(encoder + language)


def activations(sizes: Sizes, work: Work) -> float:
    """Bytes that the backward pass of a whole step needs."""
    seen = work.images * (sizes.patches + 1) * sizes.vision_width * sizes.vision["depth"]
    read = sum(rows * length for rows, length in work.rows.values()) * sizes.width * sizes.language["depth"]
    return float(ACTIVATIONS * (seen + read) + LOGITS * work.predicted * sizes.vocabulary)
