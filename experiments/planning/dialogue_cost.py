"""What multimodal dialogue takes with a 7B language model on eight GPUs: memory of a GPU and hours, by a model.

The language model is Vicuna-7B, the conversations are those of Table 8, and a run's operations come at the share of the
peak at which LLaVA-1.5 tunes the same model in the 10 hours its authors state (haotian-liu/LLaVA, README: 8 A100, 3.5
hours for stage 1). Stages are counted with activations recomputed, as there. Weights, gradients and moments are sharded
over the GPUs, which this suite does not offer for dialogue: its runs are one process, and what that holds is said too.
Nothing of it is measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from experiments.planning.cluster import ACTIVATIONS, CLUSTERS, LOGITS, STATE, Cluster
from experiments.planning.plan import Plan
from experiments.planning.specs import DialogueSpec
from results.schema import FULL, RunRecord, Status
from transfer.dialogue.scoring.base import BenchmarkName
from transfer.dialogue.scoring.registry import BENCHMARKS

GPUS = 8
UTILISATION = 0.37  # of the peak; a test holds it to LLaVA's 10 hours
CONVERSATIONS = {"align": 558_128, "tune": 665_298}  # LCS-558k and the mix (Table 8)
TEXT = {"align": 30, "tune": 350}  # tokens of a conversation beside its picture: assumed, in the mean
QUESTION, ANSWER = 60, 5  # tokens: assumed, in the mean
# Operations for each weight and token: forward, forward again and back to the picture; with the weights' own gradients.
OPERATIONS = {"align": 6, "tune": 8}


@dataclass(frozen=True, kw_only=True)
class Llama:
    """A language model of that architecture."""

    width: int
    depth: int
    ffn: int
    vocabulary: int

    @property
    def weights(self) -> float:
        """Attention, gated feed-forwards, embedding and head."""
        block = 4 * self.width**2 + 3 * self.width * self.ffn
        return float(self.depth * block + 2 * self.vocabulary * self.width)


VICUNA_7B = Llama(width=4096, depth=32, ffn=11_008, vocabulary=32_000)
VISION = (304e6, 256)  # weights and patches of ViT-L/14 at 224


def stage_seconds(spec: DialogueSpec, cluster: Cluster, patches: int = VISION[1]) -> float:
    """Training of a stage on eight GPUs."""
    seen = CONVERSATIONS[spec.stage] * spec.recipe["epochs"]
    language = OPERATIONS[spec.stage] * VICUNA_7B.weights * (patches + TEXT[spec.stage])
    encoder = (8 if spec.mode == FULL else 2) * VISION[0] * patches
    return float(seen * (language + encoder) / (GPUS * cluster.peak * UTILISATION))


def answer_seconds(spec: DialogueSpec, cluster: Cluster) -> float:
    """Every question twice, about its picture and another, on one GPU: a lower bound, as words come one by one."""
    questions = 0
    for name in spec.benchmarks:
        released = next(iter(BENCHMARKS[cast(BenchmarkName, name)].splits.values()))
        questions += max(released.sizes)
    tokens = 2 * questions * (VISION[1] + QUESTION + ANSWER)
    return 2 * VICUNA_7B.weights * tokens / (cluster.peak * UTILISATION)


def memory(spec: DialogueSpec, gpus: int) -> float:
    """Bytes of a GPU in stage 2 with so many that share all state, each with its part of the longest batch."""
    trained = VICUNA_7B.weights + (VISION[0] if spec.mode == FULL else 0)
    tokens = spec.recipe["batch"] / GPUS * spec.recipe["longest"]
    kept = 2 * tokens * VICUNA_7B.width * VICUNA_7B.depth  # what enters each layer, bf16
    one_layer = ACTIVATIONS * tokens * VICUNA_7B.width
    return float(STATE * trained / gpus + kept + one_layer + LOGITS * tokens * VICUNA_7B.vocabulary)


def of_dialogue(plan: Plan, records: Iterable[RunRecord]) -> str:
    """A line for each cluster: runs that are not done, memory and hours; "" where no row converses."""
    done = {record.run_id for record in records if record.status is Status.DONE}
    specs = [run.spec for run in plan.runs if isinstance(run.spec, DialogueSpec) and run.run_id not in done]
    if not specs:
        return ""
    stages = {name: sum(spec.stage == name for spec in specs) for name in CONVERSATIONS}
    head = (
        f"dialogue: {stages['align']} runs of stage 1 and {stages['tune']} of stage 2, if data.llm is Vicuna-7B, by "
        f"the model of docs/dialogue.md at {UTILISATION:.0%} of the peak:"
    )
    return "\n".join([head, *(_line(specs, cluster) for cluster in CLUSTERS)])


def _line(specs: Sequence[DialogueSpec], cluster: Cluster) -> str:
    training = sum(stage_seconds(spec, cluster) for spec in specs) / 3600
    answers = sum(answer_seconds(spec, cluster) for spec in specs) / 3600
    tuned = [spec for spec in specs if spec.stage == "tune"]
    shared, alone = (max(memory(spec, gpus) for spec in tuned) / 1e9 for gpus in (GPUS, 1))
    return (
        f"- {GPUS} {cluster.name}: {training:,.1f} hours of training, {GPUS * training:,.0f} GPU hours; at least "
        f"{answers:,.1f} hours of answers on one GPU; {shared:.0f} of {cluster.memory / 1e9:.0f} GB a GPU with all "
        f"state sharded, which is not offered for dialogue; one process alone would hold {alone:.0f} GB"
    )
