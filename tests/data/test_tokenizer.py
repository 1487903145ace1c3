"""Text cannot write special tokens, and comes back from its ids unchanged."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import GPT2Tokenizer

from data.errors import CorpusError
from data.tokenizer import OPT_SPECIAL, Tokenizer

TEXTS = ["alpha sees a red A .", "bravo sees a blue B .", "a green C , then a red D .", "the yellow E is behind ."] * 20
HOSTILE = [
    "</s>",
    "<BoI>",
    "<boi><EoI>",
    "&lt;img_placehold&gt;",
    "<img_placehold>",
    "<img> <IMG>[MASK]<pad><PAD></S>",
    "<start_of_img><end_of_text><|endoftext|>",
    "&lt;/s&gt;",
]


def opt_folder(path, extra_merges=()):
    """A small vocabulary in OPT's files: its specials at OPT's ids, then bytes and merges."""
    merges = [("Ġ", "a"), ("t", "h"), ("th", "e"), *extra_merges]
    units = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges]
    vocab: dict[str, int] = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for unit in units:
        vocab.setdefault(unit, len(vocab))
    path.mkdir(exist_ok=True)
    (path / "vocab.json").write_text(json.dumps(vocab))
    (path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    return path


@pytest.fixture(scope="module")
def small():
    return Tokenizer.train_bpe(TEXTS, 300)


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    return Tokenizer.opt(str(opt_folder(tmp_path_factory.mktemp("opt") / "files")))


@pytest.fixture(params=["small", "opt"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("text", HOSTILE)
def test_special_strings_in_a_page_are_ordinary_text(tokenizer, text):
    for written in (text, f" {text}", f"a{text}b", text.upper(), text.lower()):
        ids = tokenizer.encode(written)
        assert not set(ids) & tokenizer.special.ids
        assert tokenizer.decode(ids) == written


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_back_and_ids_are_ordinary(small, text):
    ids = small.encode(text)
    assert small.decode(ids) == text
    assert all(0 <= each < small.special.pad for each in ids)


def test_small_vocabulary_is_words_then_specials_then_rounding(small):
    special = small.special
    order = [special.pad, special.bos, special.boi, special.eoi, special.img, special.mask]
    assert order == list(range(special.pad, special.pad + 6)) and special.eos == special.bos
    assert special.vocab_size % 8 == 0 and special.mask < special.vocab_size <= special.mask + 8
    assert 256 < special.pad <= 300
    assert len(small.encode("alpha sees a red A .")) < len("alpha sees a red A .") / 2


def test_training_is_deterministic_and_digests_tell_vocabularies_apart(small):
    assert Tokenizer.train_bpe(TEXTS, 300).digest == small.digest
    assert Tokenizer.train_bpe(TEXTS, 290).digest != small.digest


def test_saving_keeps_everything(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.special, loaded.digest) == (tokenizer.special, tokenizer.digest)
    assert loaded.encode("the red </s>") == tokenizer.encode("the red </s>")


@pytest.mark.parametrize("content", ["", "{}", '{"special": {"pad": 1}}', "[]"])
def test_loading_something_else_says_so(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(CorpusError, match="not written by Tokenizer.save"):
        Tokenizer.load(tmp_path / "t.json")


def test_decode_leaves_out_special_and_unused_rows(small):
    special = small.special
    ids = [special.bos, *small.encode("a red A"), special.boi, special.img, special.vocab_size - 1, special.eos]
    assert small.decode(ids) == "a red A"


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(ValueError, match="256"):
        Tokenizer.train_bpe(TEXTS, 100)


def test_opt_ids_are_those_of_the_paper(opt):
    assert (opt.special.boi, opt.special.eoi, opt.special.img, opt.special.mask) == (50265, 50266, 50267, 50268)
    assert (opt.special.pad, opt.special.bos, opt.special.eos, opt.special.vocab_size) == (1, 2, 2, 50272)


def test_opt_encodes_like_transformers(tmp_path, opt):
    folder = opt_folder(tmp_path / "files")
    reference = GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    for text in ("the cat and a hat", " the a", "then, 12 é 日本\n\n x"):
        assert opt.encode(text) == reference.encode(text, add_special_tokens=False)


def test_merges_that_lead_to_a_special_token_are_refused(tmp_path):
    folder = opt_folder(tmp_path / "files", [("<", "/"), ("</", "s"), ("</s", ">")])
    with pytest.raises(CorpusError, match=r"special ids \[2\]"):
        Tokenizer.opt(str(folder))


def test_missing_opt_files_say_what_to_pass(tmp_path):
    for source in (str(tmp_path), "no-such/repository"):
        with pytest.raises(CorpusError, match="vocab.json and merges.txt of facebook/opt-125m"):
            Tokenizer.opt(source)


def test_another_vocabulary_is_not_taken_for_opts(tmp_path):
    folder = opt_folder(tmp_path / "files")
    vocab = json.loads((folder / "vocab.json").read_text())
    vocab["<pad>"], vocab["<s>"] = vocab["<s>"], vocab["<pad>"]
    (folder / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(CorpusError, match="not the OPT vocabulary"):
        Tokenizer.opt(str(folder))
    assert OPT_SPECIAL.pad == 1
