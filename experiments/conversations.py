"""`python -m experiments.conversations mix665k.json --images DIR --llm MODEL`: what stage 1 or 2 would learn from.

Every record is read, written by the template and tokenised as in training; no picture is decoded.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import get_args

from backbones.llm import LlmTokenizer, load_tokenizer
from data.dialogue.conversation import Flawed, read_conversations
from data.dialogue.example import Example, tokenised
from data.dialogue.order import batches
from data.dialogue.template import Template, as_text, written
from data.dialogue.usable import fitting
from data.tokenizer import Tokenizer
from experiments.command.exits import EXIT_DONE, ended
from experiments.configuration.overrides import ConfigError
from results.page.markdown import table as markdown_table

SHOWN = 3  # records named for each flaw


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.conversations",
        description="Count what LLaVA's conversation JSON holds, and what a stage of dialogue training learns from it.",
    )
    made.add_argument("file", type=Path, help="the records: LCS-558k, the 665k mix, or some of your own")
    made.add_argument("--images", type=Path, required=True, metavar="DIR", help="what the records' paths are below")
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("--llm", metavar="SOURCE", help="its tokenizer: a folder, .gguf or cached hub name")
    which.add_argument("--tokenizer", type=Path, metavar="FILE", help="a tokenizer trained here")
    made.add_argument(
        "--template", choices=get_args(Template), default="vicuna_v1", help="plain: stage 1 (default: %(default)s)"
    )
    made.add_argument(
        "--slots", type=int, default=256, metavar="N", help="tokens of a picture, one a patch (default: %(default)s)"
    )
    made.add_argument(
        "--longest", type=int, default=2048, metavar="N", help="tokens of a conversation (default: %(default)s)"
    )
    made.add_argument("--batch", type=int, default=128, metavar="N", help="default: %(default)s")
    made.add_argument("--show", type=int, default=0, metavar="N", help="print the first N, and what is learned of them")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    return ended(partial(show, options), {})


@dataclass
class Survey:
    """What was counted."""

    flawed: list[Flawed] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    pictured: list[bool] = field(default_factory=list)
    rounds: int = 0


def show(options: argparse.Namespace) -> int:
    """Read, count, print."""
    for name in ("slots", "longest", "batch"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} is at least 1, got {getattr(options, name)}")
    if not options.images.is_dir():
        raise ConfigError(f"--images {options.images} is no folder; give the one that the records' paths are below")
    tokenizer = _tokenizer(options)
    survey = Survey()
    for found in fitting(read_conversations(options.file, options.images), options.template):
        if isinstance(found, Flawed):
            survey.flawed.append(found)
            continue
        pieces = written(found, options.template)
        example = tokenised(found.item_id, pieces, tokenizer, options.slots, options.longest)
        survey.examples.append(example)
        survey.pictured.append(found.shown is not None)
        survey.rounds += len(found.rounds)
        if len(survey.examples) <= options.show:
            answers = [token for token, learned in zip(example.ids, example.learned, strict=True) if learned]
            print(f"{found.item_id}: {as_text(pieces)!r}\n  learned: {tokenizer.decode(answers)!r}\n")
    if not survey.examples:
        raise ConfigError(f"{options.file} holds no conversation that can be learned from: {'; '.join(_flaws(survey))}")
    print("\n".join(_page(options, survey)))
    return EXIT_DONE


def _tokenizer(options: argparse.Namespace) -> Tokenizer | LlmTokenizer:
    return Tokenizer.load(options.tokenizer) if options.tokenizer else load_tokenizer(options.llm)


def _page(options: argparse.Namespace, survey: Survey) -> list[str]:
    examples, pictured = survey.examples, survey.pictured
    lengths = [len(example) for example in examples]
    steps = batches(lengths, pictured, options.batch, seed=0, epoch=0)
    tokens, learned = sum(lengths), sum(sum(example.learned) for example in examples)
    padded = sum(len(places) * max(lengths[place] for place in places) for places in steps)
    cut = [example.cut for example in examples if example.cut]
    unlearned = sum(not any(example.learned) for example in examples)
    lines = [
        ["conversations with a picture", str(sum(pictured))],
        ["of text alone", str(len(pictured) - sum(pictured))],
        ["rounds", str(survey.rounds)],
        ["left out", str(len(survey.flawed))],
        ["tokens, pictures included", str(tokens)],
        ["longest, tokens", str(max(lengths))],
        ["learned, % of the tokens", f"{100 * learned / tokens:.1f}"],
        [f"longer than {options.longest} tokens, cut", str(len(cut))],
        ["without anything learned after the cut", str(unlearned)],
        [f"steps of {options.batch}", str(len(steps))],
        ["padding, % of what is computed", f"{100 * (1 - tokens / padded):.1f}"],
    ]
    title = f"# {options.file.name}, {options.template}, {options.slots} tokens a picture"
    return [title, "", *markdown_table(["", "count"], lines, left=1), "", *(f"- {each}" for each in _flaws(survey))]


def _flaws(survey: Survey) -> list[str]:
    counts = Counter(each.flaw for each in survey.flawed)
    return [
        f"{flaw}: {count}, as "
        + "; ".join([f"{each.item_id} ({each.message})" for each in survey.flawed if each.flaw is flaw][:SHOWN])
        for flaw, count in counts.most_common()
    ]


if __name__ == "__main__":
    sys.exit(main())
