"""Text to token ids, with special tokens that no text can produce.

Two sources: the GPT-2 byte-level vocabulary of OPT (paper: OPT-125M; the three image tokens and [MASK] take the first
free rows of its 50272-row table), and a small byte-level BPE trained on a corpus's own text for the embedded scale.
Both know only merges of bytes: special ids exist as integers outside the BPE, so "</s>" in a page is four bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from data.errors import CorpusError

OPT_ENTRIES = 50265
OPT_FILES = ("vocab.json", "merges.txt")


@dataclass(frozen=True)
class SpecialTokens:
    """Ids that only rendering writes, and the number of rows of the embedding table."""

    pad: int
    bos: int
    eos: int
    boi: int
    eoi: int
    img: int  # fills image slots, never embedded
    mask: int
    vocab_size: int

    @cached_property  # asked for with every text
    def ids(self) -> frozenset[int]:
        """All special ids."""
        return frozenset(astuple(self)[:-1])


# As in OPT, `</s>` is both BOS and EOS; losses tell them apart by token type.
OPT_SPECIAL = SpecialTokens(pad=1, bos=2, eos=2, boi=50265, eoi=50266, img=50267, mask=50268, vocab_size=50272)


class Tokenizer:
    """A byte-level BPE and its special ids. `decode(encode(text)) == text` for every text."""

    def __init__(self, core: tokenizers.Tokenizer, special: SpecialTokens) -> None:
        self.special = special
        self._core = core
        reachable = {token for token in map(core.token_to_id, _reachable(core)) if token is not None}
        if clash := sorted(reachable & special.ids):
            raise CorpusError(f"text could produce the special ids {clash}: merges of this vocabulary lead to them")

    @classmethod
    def opt(cls, source: str) -> "Tokenizer":
        """The OPT tokenizer from a folder, or from the local Hugging Face cache by repository name; no download.

        Raises:
            CorpusError: the files are not there, or are another vocabulary than OPT's.
        """
        vocab_path, merges_path = (_local_file(source, name) for name in OPT_FILES)
        vocab, merges = models.BPE.read_file(str(vocab_path), str(merges_path))
        found = {token: vocab.get(token) for token in ("<pad>", "</s>")}
        if found != {"<pad>": OPT_SPECIAL.pad, "</s>": OPT_SPECIAL.bos} or max(vocab.values()) >= OPT_ENTRIES:
            raise CorpusError(
                f"{source} is not the OPT vocabulary: {found} and largest id {max(vocab.values())}, expected "
                f"<pad> = 1, </s> = 2 and ids below {OPT_ENTRIES}; pass the tokenizer files of facebook/opt-125m"
            )
        return cls(_byte_level(models.BPE(vocab, merges)), OPT_SPECIAL)

    @classmethod
    def train_bpe(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Train a BPE of at most `vocab_size` units (256 bytes included); equal texts give an equal tokenizer.

        Special ids follow the units actually learned; the embedding rows are rounded up to a multiple of 8.
        """
        if vocab_size < 256:
            raise ValueError(f"vocab_size is {vocab_size}; a byte-level vocabulary has a unit for each of 256 bytes")
        core = _byte_level(models.BPE())
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
        core.train_from_iterator(texts, trainer)
        first = core.get_vocab_size()
        bos = first + 1
        rows = -(-(first + 6) // 8) * 8
        return cls(core, SpecialTokens(first, bos, bos, first + 2, first + 3, first + 4, first + 5, rows))

    def encode(self, text: str) -> list[int]:
        """Ordinary ids of a text, without BOS or EOS; never a special id, whatever the text says."""
        return self._core.encode(text, add_special_tokens=False).ids

    def spans(self, text: str) -> list[tuple[int, int, int]]:
        """`encode`, each id with the characters [start, end) that it covers, in part where a character has several."""
        found = self._core.encode(text, add_special_tokens=False)
        return [(token, start, end) for token, (start, end) in zip(found.ids, found.offsets, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ids and rows without a token are left out, broken UTF-8 becomes U+FFFD."""
        known = [token for token in ids if token not in self.special.ids and self._core.id_to_token(token) is not None]
        return self._core.decode(known, skip_special_tokens=False)

    @cached_property
    def digest(self) -> str:
        """A hash of vocabulary, merges and special ids."""
        return hashlib.sha256(self._json().encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write one JSON file: the special ids and the `tokenizers` description of the BPE."""
        path.write_text(self._json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read what `save` wrote. Raises CorpusError when the file is something else."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            special = SpecialTokens(**record["special"])
        except FileNotFoundError as error:
            raise CorpusError(f"{path} does not exist; pass a file written by Tokenizer.save") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path} was not written by Tokenizer.save ({type(error).__name__}: {error})") from error
        return cls(tokenizers.Tokenizer.from_str(json.dumps(record["tokenizer"])), special)

    def _json(self) -> str:
        record = {"special": asdict(self.special), "tokenizer": json.loads(self._core.to_str())}
        return json.dumps(record, ensure_ascii=False, sort_keys=True)


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer(model)  # no added tokens: nothing in a text is matched before it is split into bytes
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return core


def _reachable(core: tokenizers.Tokenizer) -> set[str]:
    """Every token that encoding a text can give: bytes and results of merges."""
    merges = json.loads(core.to_str())["model"]["merges"]
    joined = {"".join(pair) if isinstance(pair, list) else pair.replace(" ", "") for pair in merges}
    return joined | set(pre_tokenizers.ByteLevel.alphabet())


def _local_file(source: str, name: str) -> Path:
    """A tokenizer file in a folder or in the local cache of a repository."""
    folder = Path(source)
    if folder.is_dir():
        path: str | None = str(folder / name) if (folder / name).is_file() else None
    else:
        from transformers.utils.hub import cached_file  # slow import, needed for repository names only

        try:
            path = cached_file(source, name, local_files_only=True)
        except OSError:
            path = None
    if path is None:
        raise CorpusError(
            f"no {name} of the OPT tokenizer in {source!r}, neither as a folder nor in the local Hugging Face "
            f"cache, and nothing is downloaded; pass a folder with {' and '.join(OPT_FILES)} of facebook/opt-125m"
        )
    return Path(path)
