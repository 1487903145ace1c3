"""Answers to a question file, greedily and in batches, written as they come: a run that is stopped goes on after them.

Questions of equal length are answered together, so nothing is padded and an answer does not depend on its neighbours.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from data.dialogue.example import Example
from transfer.base import Tokenizer
from transfer.decode import Decoding, generate
from transfer.dialogue.head import TalkHead
from transfer.dialogue.stream import rows

AT_ONCE = 64  # questions
Tokens = Callable[[Sequence[str | None]], Float[Tensor, "b p v"]]  # patch tokens of pictures by name


def answered(
    path: Path,
    lines: Sequence[Mapping[str, Any]],
    answer: Callable[[Sequence[Mapping[str, Any]]], Sequence[str]],
    at_once: int,
) -> None:
    """Every line of a question file with an answer, into `path`; those that are there already are not asked again.

    answer: texts for some lines. A last line that a kill cut short is answered anew.
    """
    done = list(_whole(path))
    text = "".join(f"{json.dumps(each)}\n" for each in done)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
    seen = {(each["question_id"], each["prompt"]) for each in done}
    open_lines = [line for line in lines if (line["question_id"], line["text"]) not in seen]
    with path.open("a") as file:
        for start in range(0, len(open_lines), at_once):
            some = open_lines[start : start + at_once]
            for line, said in zip(some, answer(some), strict=True):
                entry = {"question_id": line["question_id"], "prompt": line["text"], "text": said}
                file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _whole(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of an answers file up to the first that is not whole."""
    for line in path.read_text().split("\n") if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            return


@torch.no_grad()
def answers(
    head: TalkHead,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    names: Sequence[str | None],
    tokens: Tokens,
    most: int,
) -> list[str]:
    """What the model says to each prompt, stripped. most: tokens of an answer, its end included."""
    special = tokenizer.special
    never = {special.pad, special.bos, special.boi, special.eoi, special.img, special.mask}
    device = next(head.parameters()).device
    training = head.training
    head.eval()
    groups: dict[int, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        groups[len(example)].append(place)
    said = [""] * len(examples)
    for places in groups.values():
        for start in range(0, len(places), AT_ONCE):
            some = places[start : start + AT_ONCE]
            talk = rows([examples[place] for place in some], special.pad)
            patches = tokens([names[place] for place in some]).to(device)
            prefix = head.embedded(patches, talk.ids.to(device), talk.kinds.to(device))
            decoding = Decoding(beams=1, max_tokens=most)
            for place, ids in zip(some, generate(head.decoder, prefix, special.eos, never, decoding), strict=True):
                said[place] = tokenizer.decode(ids).strip()
    head.train(training)
    return said
