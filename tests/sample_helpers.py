"""All of sampling for one document, for tests that look at no picture."""

from data.document import Bad, Cause, RawDocument
from data.loading.select import Rules, Sample, build, place, prepare, truncate
from data.tokenizer import Tokenizer


def sample(
    raw: RawDocument, rules: Rules, tokenizer: Tokenizer, *, patches: int, seq_len: int, seed: int, epoch: int
) -> Sample | Bad:
    """As data/loading/draw.py samples it where every image can be decoded."""
    prepared = prepare(raw, rules, tokenizer, seed)
    if isinstance(prepared, Bad):
        return prepared
    lengths = [len(text.ids) for text in prepared.texts]
    codes, cut = truncate(place(prepared, rules, seed, epoch), lengths, patches, seq_len)
    if not any(code < 0 for code in codes):
        return Bad(prepared.uid, Cause.NOT_CHOSEN, f"no image lies within the first {seq_len} tokens")
    return build(prepared, codes, cut)
