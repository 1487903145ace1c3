"""The language model captioning starts from at the embedded scale: an OPT decoder trained on a corpus's text alone.

The same weights serve every row of a table, so that no row's captions profit from its own pre-training's language model
(LCL paper A.2 takes a pretrained one; at larger scales a model is named instead). Plain next-token prediction, Eq. 7
without images.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from backbones.build import init_stream
from backbones.lm import LanguageModel
from backbones.masks import causal
from backbones.sizes import LanguageSize
from data.batch import Rows, TokenType
from data.document import Bad, Corpus
from data.loading.collate import pad_rows
from data.loading.render import Row
from data.seeds import generator
from data.tokenizer import Tokenizer
from experiments.configuration.place import Place
from experiments.configuration.typed import from_plain
from experiments.planning.specs import TextLmSpec
from experiments.running.fit import fit
from experiments.running.outcome import Outcome, Owned
from experiments.running.training import device, groups_of, optimisation_of
from experiments.running.world import open_source, save_module, tokenizer_for
from objectives.functional import TEXT_TARGETS, Losses, token_nll

LANGUAGE_FILE = "language.safetensors"
TEXT_LENGTH = 96  # tokens of a row of the captioning language model's training, pages at tiny fit


@dataclass(frozen=True)
class TextBatch:
    """Rows of text, one document each."""

    rows: Rows

    def to(self, device: str) -> "TextBatch":
        """The same rows on another device."""
        return replace(self, rows=self.rows.to(device))


class TextStream:
    """Batches of documents' text, a function of (seed, step)."""

    def __init__(
        self, corpus: Corpus, tokenizer: Tokenizer, *, steps: int, batch: int, longest: int, seed: int
    ) -> None:
        """longest: tokens of a row; longer documents are cut. Raises ValueError for a corpus without text."""
        self.steps, self.batch, self.longest, self.seed = steps, batch, longest, seed
        self.special = tokenizer.special
        self._texts = list(_texts(corpus, tokenizer))
        if not self._texts:
            raise ValueError(f"corpus {corpus.name!r} holds no text to train a language model on")

    def state(self) -> None:
        """Nothing: the step says it all."""

    def batches(self, start: int = 0) -> Iterator[TextBatch]:
        """Batches from a step on."""
        per_epoch = max(1, len(self._texts) // self.batch)
        for step in range(start, self.steps):
            epoch, place = divmod(step, per_epoch)
            order = generator(self.seed, "text_lm", "order", epoch).permutation(len(self._texts))
            chosen = order[place * self.batch : (place + 1) * self.batch]
            rows = [self._row(self._texts[i]) for i in chosen]
            yield TextBatch(pad_rows(rows, self.longest, self.special.pad))

    def _row(self, ids: tuple[int, ...]) -> Row:
        """`</s> text </s>`; the end is not claimed where the text had to be cut."""
        ends = len(ids) + 2 <= self.longest
        kept = ids[: self.longest - 1]
        row = Row(ids=[self.special.bos, *kept], types=[int(TokenType.BOS), *[int(TokenType.TEXT)] * len(kept)])
        if ends:
            row.ids.append(self.special.eos)
            row.types.append(int(TokenType.EOS))
        return row


def text_lm(spec: TextLmSpec, place: Place, run: Owned) -> Outcome:
    """Train the captioning language model; leaves language.safetensors."""
    size: LanguageSize = from_plain(LanguageSize, spec.model, "model")
    tokenizer = tokenizer_for(place, spec.tokenizer)
    corpus = open_source(place, spec.source)
    with init_stream(spec.seed, "init", "text_lm"):
        module = TextLm(LanguageModel(size, tokenizer.special.vocab_size)).to(device())
    longest = min(TEXT_LENGTH, size.positions)
    stream = TextStream(corpus, tokenizer, steps=spec.steps, batch=spec.batch, longest=longest, seed=spec.seed)
    groups = groups_of(module, spec.optim)
    last = fit(module, stream, groups, optimisation_of(spec.optim), run=run, seed=spec.seed)
    run.may_write()
    save_module(run.folder / LANGUAGE_FILE, module.language)
    return Outcome(metrics=last, data_digest=corpus.digest)


def _texts(corpus: Corpus, tokenizer: Tokenizer) -> Iterator[tuple[int, ...]]:
    for index in range(len(corpus)):
        document = corpus[index]
        if not isinstance(document, Bad):
            said = [segment.strip() for segment in document.segments if segment.strip()]
            ids = [token for k, text in enumerate(said) for token in tokenizer.encode(text if k == 0 else f" {text}")]
            if ids:
                yield tuple(ids)


class TextLm(nn.Module):
    """Next-token prediction on text."""

    def __init__(self, language: LanguageModel) -> None:
        super().__init__()
        self.language = language

    def forward(self, batch: TextBatch) -> Losses:
        """The term `generate`, over TEXT and EOS."""
        rows = batch.rows
        hidden = self.language(self.language.embed(rows.input_ids), causal(rows.attn_mask), rows.position_ids)
        loss = token_nll(hidden, rows, self.language.logits, TEXT_TARGETS)
        return Losses({"generate": loss.term()}, {"generate": 1.0}, {"text_nll": loss.text_nll()})

    def after_step(self) -> None:
        """Nothing to clamp."""
