"""What ranks cost on this machine: one and two processes with the same work each, and the memory of the contrast.

    python -m benchmarks.ranks [--steps 100] [--pairs 32]

Weak scaling: CLIP at the embedded size on made-up pairs, equally many on each rank, one thread each; of all steps the
fastest counts, as whatever else runs on the machine only adds. Beside the measured step of two ranks stands what the
model of docs/scale.md predicts: the compute of one rank, and the exchange of its gradients, measured by itself. Cores
of one machine share its memory, so compute is also measured of two processes at once that know nothing of each other.
The memory is what a rank needs for the contrast of its rows with 65,536 of all ranks, forward and backward.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from backbones.build import build_language, build_vision
from backbones.sizes import SIZES
from data.batch import Batch, Layout, Rows, TokenType
from data.tokenizer import Tokenizer
from experiments.running.distributed import gradients
from experiments.running.distributed.rendezvous import FIRST_PORT, FREE_PORT, PORTS, Seat, store_of
from experiments.running.distributed.together import together
from objectives import functional
from objectives.clip import CLIP
from objectives.functional import info_nce, total

GLOBAL, WIDTH = 65_536, 128  # rows of all ranks, and their width
LOCAL = (256, 512)  # rows of the rank whose memory is measured
LIMIT = timedelta(seconds=120)
TEXT = 20  # tokens of a caption
SPECIAL = Tokenizer.train_bpe([], 512).special


def pairs(count: int, rank: int) -> Batch:
    """Noise with captions, as TEXT_ONLY rows."""
    draw = torch.Generator().manual_seed(rank)
    kinds = torch.tensor([int(TokenType.BOS), *[int(TokenType.TEXT)] * TEXT, int(TokenType.BOI)])
    ids = torch.randint(10, 256, (count, len(kinds)), generator=draw)
    every = torch.arange(count)
    rows = Rows(
        input_ids=ids,
        attn_mask=torch.ones_like(ids, dtype=torch.bool),
        token_type=kinds.expand(count, -1),
        position_ids=torch.arange(len(kinds)).expand(count, -1),
        doc_id=torch.zeros_like(ids),
        img_row=every,
        img_boi=torch.full((count,), len(kinds) - 1),
        img_has_ctx=torch.ones(count, dtype=torch.bool),
    )
    side = SIZES["tiny"].vision.image_size
    return Batch(
        images=torch.randn(count, 3, side, side, generator=draw),
        rows={Layout.TEXT_ONLY: rows},
        labels=torch.full((count,), -1),
        doc_uid=tuple(map(str, every.tolist())),
        doc_seed=every,
        caption_hash=every,
    )


def step_seconds(answer: Connection, rank: int, ranks: int, count: int, steps: int) -> None:
    """Answers the least seconds of a step, and of the average of its gradients over ranks."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    port = FREE_PORT if ranks == 1 else FIRST_PORT + os.getppid() % PORTS
    seat = Seat(rank, ranks, rank, "127.0.0.1", port)
    with together(seat, store_of(seat, LIMIT), LIMIT):
        of = CLIP(CLIP.Config(), build_vision(SIZES["tiny"], 0), build_language(SIZES["tiny"], 512, 0), SPECIAL)
        trained, batch = list(of.parameters()), pairs(count, rank)
        for parameter in trained:
            parameter.grad = torch.ones_like(parameter)
        exchange = min(_timed(lambda: gradients.average(trained), steps))

        def step() -> None:
            of.zero_grad(set_to_none=True)
            total(of(batch)).backward()
            gradients.average(trained)

        answer.send((min(_timed(step, steps)), exchange))


def _timed(work: Callable[[], object], times: int) -> list[float]:
    found = []
    for _ in range(times + 1):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return found[1:]  # the first one allocates


def contrast_bytes(answer: Connection, local: int) -> None:
    """Answers the peak memory of a contrast of so many rows with GLOBAL ones, beyond its inputs."""
    torch.set_num_threads(1)
    others = torch.randn(GLOBAL - local, 2 * WIDTH)
    functional.gather_rows = lambda x: (torch.cat([x, others[:, : x.shape[-1]]]), 0)  # type: ignore[assignment]
    v, t = (torch.randn(local, WIDTH, requires_grad=True) for _ in range(2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    term, _ = info_nce(v, t, torch.tensor(10.0))
    term.sum.backward()
    answer.send(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def answers(work: Callable[..., None], *arguments: tuple[int, ...]) -> list[Any]:
    """What processes answer that do the work side by side, one for each tuple of arguments."""
    context, pipes = get_context("fork"), []
    for each in arguments:
        ours, theirs = context.Pipe(duplex=False)
        context.Process(target=work, args=(theirs, *each)).start()
        theirs.close()
        pipes.append(ours)
    return [pipe.recv() for pipe in pipes]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.ranks", description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=32, help="of a rank (default: %(default)s)")
    options = parser.parse_args()
    work = (options.pairs, options.steps)
    ((alone, _),) = answers(step_seconds, (0, 1, *work))
    beside = max(seconds for seconds, _ in answers(step_seconds, (0, 1, *work), (0, 1, *work)))
    (two, exchange), _ = answers(step_seconds, (0, 2, *work), (1, 2, *work))
    print(f"weak scaling, {options.pairs} pairs a rank: one rank {1000 * alone:.1f} ms a step, two {1000 * two:.1f} ms")
    print(f"one rank while another process does the same on its own: {1000 * beside:.1f} ms")
    for name, compute in (("a machine for each", alone), ("one machine", beside)):
        print(
            f"predicted for two on {name}: {1000 * (compute + exchange):.1f} ms, of it {1000 * exchange:.1f} ms for "
            f"the gradients; efficiency {alone / (compute + exchange):.0%}, measured {alone / two:.0%}"
        )
    for local in LOCAL:
        (used,) = answers(contrast_bytes, (local,))
        print(
            f"contrast of {local} rows with {GLOBAL:,}: {used / 1e6:.0f} MB at the peak; "
            f"one matrix of logits is {4 * local * GLOBAL / 1e6:.0f} MB, one of all rows {4 * GLOBAL**2 / 1e9:.0f} GB"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
