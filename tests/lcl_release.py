"""The released LCL (OpenGVLab/LCL) in small: seeded weights under its names, one batch, and what our parts call them.

`tests/golden/official_lcl.py` gives the weights to the official model, tests/objectives/test_lcl_release.py to ours.

Shape letters: m images, b rows, t tokens, s image side.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from backbones.foreign.source import load
from backbones.lm import LanguageModel
from backbones.sizes import LanguageSize
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout, Rows, TokenType
from data.tokenizer import SpecialTokens
from objectives.lcl import LCL

FILE = Path(__file__).parent / "golden" / "official_lcl.json"
SIDE, PATCH, PATCHES, WIDTH, DEPTH, VOCABULARY, CONTEXT = 32, 8, 16, 128, 2, 64, 48
SOT, EOT, IMG, SOI, EOI = range(58, 63)  # the released vocabulary ends with them as well
IMAGE = [SOI, *[IMG] * PATCHES, EOI]
# As its two data sets write them: two documents, of which one begins with an image, and both orders of a pair. 0 pads.
ROWS: Sequence[Sequence[int]] = (
    [SOT, 5, 6, 7, *IMAGE, 8, 9, EOT],
    [SOT, *IMAGE, 11, 12, 13, *IMAGE, 14],  # cut: no end
    [*IMAGE, 20, 21, EOT],
    [SOT, 30, 31, 32, 33, *IMAGE],
)


@dataclass(frozen=True)
class Inputs:
    """What both models read."""

    images: Float[Tensor, "m 3 s s"]
    ids: Int[Tensor, "b t"]


def inputs() -> Inputs:
    """The batch. Numbers are numpy's, whose streams do not change with torch."""
    longest = max(map(len, ROWS))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ROWS])
    return Inputs(_numbers("images", (int((ids == SOI).sum()), 3, SIDE, SIDE)), ids)


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Weights by the official names, each from a stream named after it; no norm is the identity, no bias zero."""
    found = {}
    for name, shape in shapes.items():
        drawn = _numbers(name, tuple(shape))
        if name == "logit_scale":
            drawn = torch.tensor(2.0)
        elif drawn.ndim >= 2:
            drawn = drawn / math.sqrt(math.prod(shape[1:]))
        else:
            norm = name.endswith("weight")
            drawn = 0.1 * drawn + (1.0 if norm else 0.0)
        found[name] = drawn
    return found


def ours(held: Mapping[str, Tensor], file: Path) -> LCL:
    """Our objective with those weights; the encoder through the released file, as a user takes it in."""
    torch.save({"state_dict": dict(held)}, file)
    vision = load("lcl:", file).tower
    assert isinstance(vision, VisionEncoder)
    size = LanguageSize(
        name="released", width=WIDTH, depth=DEPTH, heads=2, ffn=4 * WIDTH, positions=CONTEXT,
        activation="gelu", final_norm=False,
    )  # fmt: skip
    special = SpecialTokens(
        pad=0, bos=SOT, eos=EOT, boi=SOI, eoi=EOI, img=IMG, mask=VOCABULARY - 1, vocab_size=VOCABULARY
    )
    config = LCL.Config(skip_rule="index0", gen_on_boi="always", head="own")
    lcl = LCL(config, vision, LanguageModel(size, VOCABULARY), special)
    own = {f"vision.{name}": value for name, value in vision.state_dict().items()}
    lcl.load_state_dict(own | {name: value for name, (_, value) in renamed(held).items()})
    return lcl.eval()


def renamed(held: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """Connector and text side by our names: the official name and its tensor as we hold it."""
    found = {}
    for ours, theirs in _names():
        value = held[theirs]
        if theirs == "text.positional_embedding":  # OPT's first two positions are never read
            value = torch.cat([torch.zeros(2, WIDTH), value])
        elif theirs == "text.text_projection":  # a matrix from the right
            value = value.T
        elif theirs == "pool_project.query_token":
            value = value.flatten()
        elif ".in_proj_" in theirs:
            value = value.chunk(3)["qkv".index(ours.split(".self_attn.")[1][0])]
        found[ours] = (theirs, value)
    return found


def _names() -> Iterator[tuple[str, str]]:
    """Our name of a parameter beside the official one."""
    yield "temperature.log_scale", "logit_scale"
    yield "language.decoder.embed_tokens.weight", "text.token_embedding.weight"
    yield "language.decoder.embed_positions.weight", "text.positional_embedding"
    yield "readout.proj.weight", "text.text_projection"
    yield "own_head.1.weight", "lm_head.1.weight"
    yield "connector.query", "pool_project.query_token"
    pooler = "pool_project.pooler"
    yield "connector.to_tokens.to_output.weight", f"{pooler}.cross_attn.proj.weight"
    for name, part in (("to_query", "q"), ("to_key", "k"), ("to_tokens.to_value", "v")):
        yield f"connector.{name}.weight", f"{pooler}.cross_attn.{part}.weight"
        yield f"connector.{name}.bias", f"{pooler}.cross_attn.{part}_bias"
    for kind in ("weight", "bias"):
        yield f"readout.norm.{kind}", f"text.ln_final.{kind}"
        yield f"own_head.0.{kind}", f"lm_head.0.{kind}"
        for name, part in (("norm_query", "q"), ("norm_key", "k"), ("to_tokens.norm_value", "v")):
            yield f"connector.{name}.{kind}", f"{pooler}.norm1_{part}.{kind}"
        for layer in range(DEPTH):
            mine, theirs = f"language.decoder.layers.{layer}", f"text.transformer.resblocks.{layer}"
            for name, part in (("self_attn_layer_norm", "ln_1"), ("self_attn.out_proj", "attn.out_proj"),
                               ("final_layer_norm", "ln_2"), ("fc1", "mlp.c_fc"), ("fc2", "mlp.c_proj")):  # fmt: skip
                yield f"{mine}.{name}.{kind}", f"{theirs}.{part}.{kind}"
            for part in "qkv":
                yield f"{mine}.self_attn.{part}_proj.{kind}", f"{theirs}.attn.in_proj_{kind}"


def batch() -> Batch:
    """The inputs as objectives see them."""
    given = inputs()
    ids, (row, column) = given.ids, (given.ids == SOI).nonzero(as_tuple=True)
    kinds = torch.full_like(ids, TokenType.TEXT)
    for value, kind in ((0, TokenType.PAD), (SOT, TokenType.BOS), (EOT, TokenType.EOS), (IMG, TokenType.IMG),
                        (SOI, TokenType.BOI), (EOI, TokenType.EOI)):  # fmt: skip
        kinds[ids == value] = int(kind)
    valid = ids != 0
    rows = Rows(
        input_ids=ids,
        attn_mask=valid,
        token_type=kinds,
        position_ids=torch.arange(ids.shape[1]).expand(len(ids), -1),
        doc_id=torch.where(valid, 0, -1),
        img_row=row,
        img_boi=column,
        img_has_ctx=column > (ids[row, 0] == SOT).long(),
    )
    return Batch(
        images=given.images,
        rows={Layout.INTERLEAVED: rows},
        labels=torch.full((len(row),), -1),
        doc_uid=tuple(map(str, range(len(ids)))),
        doc_seed=torch.arange(len(ids)),
        caption_hash=torch.arange(len(ids)),
    )


def _numbers(name: str, shape: tuple[int, ...]) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32))
