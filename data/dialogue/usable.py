"""The conversations of a stage that can be learned from; what cannot is counted by its flaw and left out.

The rule is that of pre-training corpora: downloads lose pictures, and only so much of that is borne.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data.dialogue.conversation import Conversation, Flaw, Flawed, read_conversations
from data.dialogue.template import Template, fits
from data.errors import CorpusError
from data.loading.readable import unreadable_files


@dataclass(frozen=True)
class Usable:
    """What a stage learns from, and how many records it leaves out."""

    conversations: tuple[Conversation, ...]
    left_out: Mapping[Flaw, int]

    @property
    def coverage(self) -> dict[str, int]:
        """As records of runs count."""
        counts = {"documents": len(self.conversations), "skipped": sum(self.left_out.values())}
        return counts | {flaw.value: count for flaw, count in self.left_out.items()}


def fitting(found: Iterable[Conversation | Flawed], template: Template) -> Iterator[Conversation | Flawed]:
    """The same, conversations that the template cannot write being flawed."""
    for each in found:
        if isinstance(each, Conversation) and not fits(each, template):
            yield Flawed(each.item_id, Flaw.NOT_A_PAIR, f"{template} takes a picture and one round")
        else:
            yield each


def usable(path: Path, images: Path, template: Template, *, max_broken: float, cache: Path | None = None) -> Usable:
    """Records of LLaVA's JSON that a template can write and whose picture can be decoded, in the order of the file.

    Args:
        path: the JSON.
        images: what its paths of pictures are below.
        template: one that takes no more than a picture and one round leaves out what has more.
        max_broken: share of the records that may be left out.
        cache: folder in which pictures that cannot be decoded are remembered.

    Raises:
        CorpusError: the file is no JSON list, or too much is left out; the message counts it by flaw.
    """
    whole, flawed = list[Conversation](), list[Flawed]()
    for found in fitting(read_conversations(path, images), template):
        if isinstance(found, Flawed):
            flawed.append(found)
        else:
            whole.append(found)
    shown = sorted({each.image for each in whole if each.image is not None})
    bad = unreadable_files(images, shown, f"{path.parent.name}/{path.stem}", cache)
    for each in whole:
        if each.image is not None and each.image in bad:
            flawed.append(Flawed(each.item_id, Flaw.UNREADABLE, f"{each.image}: {bad[each.image]}"))
    kept = tuple(each for each in whole if each.image not in bad)
    if not kept or len(flawed) > max_broken * (len(kept) + len(flawed)):
        raise _too_much(path, len(kept), flawed, max_broken)
    return Usable(kept, Counter(each.flaw for each in flawed))


def _too_much(path: Path, kept: int, flawed: list[Flawed], max_broken: float) -> CorpusError:
    count = Counter(each.flaw for each in flawed)
    first = {each.flaw: each for each in reversed(flawed)}
    causes = "; ".join(
        f"{flaw} {number}, as {first[flaw].item_id}: {first[flaw].message}" for flaw, number in count.most_common()
    )
    if not kept:
        return CorpusError(f"{path} holds no conversation that can be learned from ({causes or 'it is empty'})")
    share = len(flawed) / (kept + len(flawed))
    return CorpusError(
        f"{path}: {len(flawed)} of {kept + len(flawed)} records cannot be learned from, {share:.0%}; the limit is "
        f"data.max_broken={max_broken}. {causes}. Complete the download, or bear it with "
        f"--set data.max_broken={min(1.0, round(share + 0.06, 1))}"
    )
