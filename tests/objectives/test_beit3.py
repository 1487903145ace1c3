"""BEiT-3: what is hidden, what each prediction may depend on, and its image targets.

INV-B3-7 (native multiway equals the ViT) has no test: the multiway architecture is not built. INV-B3-6 (determinism of
the targets across processes) is in tests/backbones/test_image_targets.py.
"""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import IMAGE, SPECIAL, VOCABULARY, Doc, at_tiny, batch, documents, packed, with_ids, with_images, words
from slow import slow_language
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from backbones.heads import Connector
from backbones.image_targets import CentroidCodes
from backbones.lm import LanguageModel
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout, Rows, TokenType
from data.images import ImageTransform
from objectives.beit3 import BEiT3, allowed
from objectives.functional import total
from objectives.masking import MaskPlan, MaskRules, plan_masks

PATCHES = 16
ROWS = Layout.INTERLEAVED


@pytest.fixture
def beit3(vision: VisionEncoder, language: LanguageModel) -> BEiT3:
    return build(vision, language)


def build(vision: VisionEncoder, language: LanguageModel, target: str = "rpq_random", **rules: float) -> BEiT3:
    config = BEiT3.Config(masks=MaskRules(min_block=2, **rules), codes=64, target=target, fit_patches=512)
    return BEiT3(config, vision, language, SPECIAL).eval()


def make(docs: list[Doc]) -> Batch:
    return batch(docs, BEiT3.layouts, PATCHES)


def many() -> list[Doc]:
    body = (IMAGE, words("x", length=6), IMAGE, words("y", length=14))
    return [Doc(f"many-{i}", body) for i in range(40)]


def predictions(beit3: BEiT3, of: Batch, plan: MaskPlan) -> tuple[Tensor, Tensor]:
    """Image logits [m, p, k] at every slot and text logits [n, v] at hidden tokens."""
    hidden = beit3.read(of, plan)[0]
    slots = hidden[of[ROWS].token_type == TokenType.IMG].view(len(of.images), PATCHES, -1)
    return beit3.image_head(slots), beit3.language.logits(hidden[plan.text])


def with_mode(plan: MaskPlan, mono: bool) -> MaskPlan:
    return plan._replace(mono=torch.full_like(plan.mono, mono))


def patch_changed(images: Tensor, image: int, patch: int) -> Tensor:
    changed = images.clone()
    row, column = divmod(patch, 4)
    changed[image, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 1.0
    return changed


# Masks


def test_inv_b3_3_exactly_so_many_patches_and_tokens_are_hidden(beit3: BEiT3) -> None:
    of = make(many())
    plan = beit3.plan(of)
    assert (plan.patches.sum(1) == 6).all()  # 40 % of 16
    mono = plan.mono.any(dim=1)
    assert 8 < mono.sum() < 32
    assert torch.equal(plan.text.sum(1), torch.where(mono, 3, 10))  # 15 % and 50 % of 20


def test_paper_grids_hide_78_and_102_patches() -> None:
    rows = make(many()[:1])[ROWS]
    for grid, count in ((14, 78), (16, 102)):
        plan = plan_masks(rows, torch.tensor([7]), grid, MaskRules(), SPECIAL, VOCABULARY)
        assert plan.patches.sum(1).tolist() == [count, count]


def test_inv_b3_3_only_text_is_hidden_and_only_hidden_ids_change(beit3: BEiT3) -> None:
    rows = make(many() + documents())[ROWS]
    plan = beit3.plan(make(many() + documents()))
    assert (rows.token_type[plan.text] == TokenType.TEXT).all()
    assert torch.equal(plan.input_ids[~plan.text], rows.input_ids[~plan.text])


def test_inv_b3_3_masks_belong_to_the_document(beit3: BEiT3) -> None:
    docs = documents() + many()[:3]
    whole = beit3.plan(make(docs))
    reverse = beit3.plan(make(docs[::-1]))
    parts = [beit3.plan(make(docs[:2])), beit3.plan(make(docs[2:]))]  # as two ranks would hold them
    assert torch.equal(whole.patches, torch.cat([part.patches for part in parts]))
    assert torch.equal(whole.mono.any(1), torch.cat([part.mono.any(1) for part in parts]))
    assert torch.equal(whole.mono.any(1), reverse.mono.any(1).flip(0))
    assert torch.equal(whole.text, reverse.text.flip(0))
    assert torch.equal(whole.input_ids, reverse.input_ids.flip(0))


def test_masks_change_with_the_epoch(beit3: BEiT3) -> None:
    first, second = (beit3.plan(batch(many(), BEiT3.layouts, PATCHES, epoch=epoch)) for epoch in (0, 1))
    assert not torch.equal(first.patches, second.patches)
    assert not torch.equal(first.text, second.text)


def test_hidden_tokens_are_shown_as_mask_other_or_themselves(vision: VisionEncoder, language: LanguageModel) -> None:
    docs = [Doc(f"long-{i}", (words(i, length=100),)) for i in range(20)]
    of = make(docs)
    plan = build(vision, language, text_share_mono=1.0).plan(of)
    shown, true = plan.input_ids[plan.text], of[ROWS].input_ids[plan.text]
    assert len(shown) == 2000
    masked, kept = shown == SPECIAL.mask, shown == true
    assert masked.float().mean() == pytest.approx(0.8, abs=0.03)
    assert kept.float().mean() == pytest.approx(0.1 + 0.1 / 57, abs=0.025)
    other = shown[~masked & ~kept]
    assert len(other.unique()) > 40
    assert not set(other.tolist()) & {SPECIAL.pad, SPECIAL.bos, SPECIAL.boi, SPECIAL.eoi, SPECIAL.img}


def test_at_least_one_token_is_hidden(beit3: BEiT3) -> None:
    plan = beit3.plan(make([Doc("one", (words("o", length=1),)), Doc("pair", (IMAGE, words("p", length=1)))]))
    assert plan.text.sum(1).tolist() == [1, 1]


def test_all_text_documents_are_masked_as_one_modality(beit3: BEiT3) -> None:
    of = make([Doc(f"t-{i}", (words(i, length=20),)) for i in range(10)])
    plan = beit3.plan(of)
    assert plan.mono[of[ROWS].attn_mask].all()
    assert (plan.text.sum(1) == 3).all()


def test_documents_of_one_row_are_masked_each_by_its_own_rates(vision: VisionEncoder, language: LanguageModel) -> None:
    """A document without images has one modality, whatever it stands beside in a window of OBELICS."""
    docs = [Doc("text", (words("t", length=40),)), Doc("pair", (IMAGE, words("p", length=20))), Doc("w", ((5,),))]
    rows = (of := packed(docs, ROWS, PATCHES))[ROWS]
    plan = build(vision, language, mono_share=0.0).plan(of)
    hidden = [int(plan.text[rows.doc_id == number].sum()) for number in range(3)]
    assert hidden == [6, 10, 1]  # 15 %, 50 %, at least one
    assert [bool(plan.mono[rows.doc_id == number].all()) for number in range(3)] == [True, False, True]
    assert (plan.patches.sum(1) == 6).all() and len(plan.patches) == 1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_mono_share_decides_the_mode(vision: VisionEncoder, language: LanguageModel, share: float) -> None:
    assert (build(vision, language, mono_share=share).plan(make(many())).mono.any(1) == bool(share)).all()


# What predictions depend on


@pytest.mark.parametrize("mono", [True, False])
def test_inv_b3_1_pixels_of_hidden_patches_change_no_output(beit3: BEiT3, mono: bool) -> None:
    of = make(documents())
    plan = with_mode(beit3.plan(of), mono)
    image, text = predictions(beit3, of, plan)
    for patch in range(PATCHES):
        changed = with_images(of, patch_changed(of.images, 0, patch))
        new_image, new_text = predictions(beit3, changed, plan)
        if plan.patches[0, patch]:
            assert torch.equal(new_image, image)
            assert torch.equal(new_text, text)
        else:
            assert (new_image[0] - image[0]).abs().max() > 1e-6


def test_inv_b3_2_mono_predictions_see_their_own_modality_only(beit3: BEiT3) -> None:
    of = make(documents()[:1])
    text_place = int((of[ROWS].token_type[0] == TokenType.TEXT).nonzero()[-1])
    for mono in (True, False):
        plan = with_mode(beit3.plan(of), mono)
        plan = plan._replace(patches=plan.patches.clone(), text=plan.text.clone())
        image, text = predictions(beit3, of, plan)
        ids = plan.input_ids.clone()
        ids[0, text_place] = (int(ids[0, text_place]) + 1) % 50 + 3
        image_of_other_text, _ = predictions(beit3, of, plan._replace(input_ids=ids))
        _, text_of_other_images = predictions(beit3, with_images(of, of.images + 1), plan)
        assert torch.equal(image_of_other_text, image) == mono
        assert torch.equal(text_of_other_images, text) == mono


def blocks(rows: Rows, row: int, mono: bool) -> list[tuple[int, int]]:
    """For each position its document, and in a mono row the number of its image where it belongs to one, else 0."""
    image, found = 0, []
    for kind, document in zip(rows.token_type[row].tolist(), rows.doc_id[row].tolist(), strict=True):
        image += kind == TokenType.BOI
        of_image = kind in (TokenType.BOI, TokenType.IMG, TokenType.EOI)
        found.append((document, image if of_image and mono else 0))
    return found


@pytest.mark.parametrize("mono", [True, False])
def test_who_sees_whom_written_out(mono: bool) -> None:
    for of in (make(documents()), packed(documents()[:2], ROWS, PATCHES)):
        rows = of[ROWS]
        mask = allowed(rows, torch.full_like(rows.attn_mask, mono))
        for row, valid in enumerate(rows.attn_mask.tolist()):
            block = blocks(rows, row, mono)
            expected = [[a and b and block[i] == block[j] for j, b in enumerate(valid)] for i, a in enumerate(valid)]
            assert mask[row].tolist() == expected


@pytest.mark.parametrize("mono", [True, False])
def test_documents_of_one_row_are_blind_to_each_other(beit3: BEiT3, mono: bool) -> None:
    of = packed(documents()[:2], ROWS, PATCHES)
    plan = with_mode(beit3.plan(of), mono)
    first = of[ROWS].doc_id == 0
    ids = plan.input_ids.clone()
    ids[0, 1] = (int(ids[0, 1]) + 1) % 50 + 3
    before, after = beit3.read(of, plan)[0], beit3.read(of, plan._replace(input_ids=ids))[0]
    changed = (before != after).any(dim=-1)
    assert changed[first].any() and not changed[~first].any()


@pytest.mark.parametrize("mono", [True, False])
def test_states_are_those_of_the_language_model_written_out(beit3: BEiT3, mono: bool) -> None:
    of = make(documents()[:2])
    rows, plan = of[ROWS], with_mode(beit3.plan(of), mono)
    hidden, _, tokens = beit3.read(of, plan)
    words, image = beit3.language.decoder.embed_tokens.weight, 0
    for row in range(2):
        length, parts = int(rows.attn_mask[row].sum()), []
        kinds, ids = rows.token_type[row].tolist(), plan.input_ids[row].tolist()
        for place in range(length):
            if kinds[place] == TokenType.BOI:
                parts += [words[[SPECIAL.boi]], tokens[image]]
                image += 1
            elif kinds[place] != TokenType.IMG:
                parts.append(words[[ids[place]]])
        block = blocks(rows, row, mono)
        x = torch.cat(parts)
        expected = slow_language(beit3.language, x, range(length), lambda i, j, block=block: block[i] == block[j])
        torch.testing.assert_close(hidden[row, :length], expected, atol=1e-5, rtol=0)


def test_inv_b3_2_mono_images_do_not_see_each_other(beit3: BEiT3) -> None:
    of = make(documents()[:1])
    other = of.images.clone()
    other[1] += 1
    for mono in (True, False):
        plan = with_mode(beit3.plan(of), mono)
        image, _ = predictions(beit3, of, plan)
        changed, _ = predictions(beit3, with_images(of, other), plan)
        assert torch.equal(changed[0], image[0]) == mono
        assert not torch.equal(changed[1], image[1])


def test_inv_b3_5_labels_of_visible_positions_do_not_matter(beit3: BEiT3) -> None:
    of = make(documents())
    rows, plan = of[ROWS], beit3.plan(of)
    hidden = beit3.read(of, plan)[0]
    targets = beit3.target.targets(beit3.pixels(of.images))
    loss = beit3.image_term(hidden, rows, plan, targets)[0].sum
    other = torch.where(plan.patches, targets, (targets + 1) % 64)
    assert torch.equal(beit3.image_term(hidden, rows, plan, other)[0].sum, loss)
    other = torch.where(plan.patches, (targets + 1) % 64, targets)
    assert not torch.equal(beit3.image_term(hidden, rows, plan, other)[0].sum, loss)


@pytest.mark.parametrize("mono_share", [0.0, 1.0])
def test_inv_b3_5_text_loss_reaches_the_encoder_in_multi_only(
    vision: VisionEncoder, language: LanguageModel, mono_share: float
) -> None:
    beit3 = build(vision, language, mono_share=mono_share)
    losses = beit3(make(documents()))
    losses.terms["masked_text"].sum.backward()
    reached = any(bool((p.grad != 0).any()) for p in vision.parameters() if p.grad is not None)
    assert reached == (mono_share == 0.0)


def test_tokens_are_those_of_the_shared_connector(beit3: BEiT3) -> None:
    connector, patches = Connector(128, 128), torch.randn(2, PATCHES, 128)
    beit3.connector.load_state_dict(connector.to_tokens.state_dict())
    assert torch.equal(beit3.connector(patches), connector(patches).tokens)


# Losses


def test_inv_b3_4_losses_at_initialisation(vision: VisionEncoder, language: LanguageModel) -> None:
    beit3 = build(vision, language)
    terms = beit3(make(many())).terms
    # Logits of a LayerNorm output of width d through weights of std 0.02 have variance 0.0004 d: half of it is added.
    extra = 0.0004 * language.width / 2
    assert terms["masked_image"].mean() == pytest.approx(math.log(64) + extra, abs=0.15)
    assert terms["masked_text"].mean() == pytest.approx(math.log(VOCABULARY) + extra, abs=0.25)


def test_terms_are_sums_over_hidden_positions(beit3: BEiT3) -> None:
    of = make(documents())
    losses, plan = beit3(of), beit3.plan(of)
    assert losses.terms["masked_image"].count == plan.patches.sum()
    assert losses.terms["masked_text"].count == plan.text.sum()
    image, text = predictions(beit3, of, plan)
    codes = beit3.target.targets(beit3.pixels(of.images))
    by_hand = -image.log_softmax(-1).gather(-1, codes[..., None])[..., 0][plan.patches].sum()
    torch.testing.assert_close(losses.terms["masked_image"].sum, by_hand)
    true = of[ROWS].input_ids[plan.text]
    by_hand = -text.log_softmax(-1)[torch.arange(len(true)), true].sum()
    torch.testing.assert_close(losses.terms["masked_text"].sum, by_hand)


def test_terms_weigh_one_to_one_and_each_has_a_weight_of_its_own(
    vision: VisionEncoder, language: LanguageModel
) -> None:
    of = make(documents())
    assert build(vision, language)(of).weights == {"masked_image": 1.0, "masked_text": 1.0}
    config = BEiT3.Config(codes=64, target="rpq_random", image_weight=2.0, text_weight=3.0)
    weighed = BEiT3(config, vision, language, SPECIAL)
    assert weighed(of).weights == {"masked_image": 2.0, "masked_text": 3.0}


@pytest.mark.parametrize("target", ["rpq_kmeans", "rpq_random", "pixel"])
def test_every_target_trains_everything(vision: VisionEncoder, language: LanguageModel, target: str) -> None:
    beit3 = build(vision, language, target=target)
    beit3.prepare([make(many()).images])
    total(beit3(make(many()))).backward()
    assert [name for name, p in beit3.named_parameters() if p.grad is None] == []
    assert beit3.mask_token.grad.abs().max() > 0


def test_fewer_patches_than_codes_are_refused_where_codes_are_fitted() -> None:
    with pytest.raises(ValueError, match="fit_patches 100 and codes 512"):
        BEiT3.Config(codes=512, fit_patches=100)
    assert BEiT3.Config(codes=512, fit_patches=100, target="rpq_random").codes == 512
    with pytest.raises(ValueError, match="min_block is a number of patches, at least 1, got 0"):
        MaskRules(min_block=0)


def test_targets_come_from_unnormalised_pixels(beit3: BEiT3) -> None:
    images = torch.rand(4, 3, 32, 32)
    bytes_of = (images * 255).round().byte().permute(0, 2, 3, 1)
    normalised = ImageTransform(32).normalise(bytes_of)  # what the loader gives
    torch.testing.assert_close(beit3.pixels(normalised), bytes_of.permute(0, 3, 1, 2) / 255)


def test_watch_compares_accuracy_with_the_most_frequent_code(beit3: BEiT3) -> None:
    of = make(many())
    watch = beit3(of).watch
    wanted = beit3.target.targets(beit3.pixels(of.images))[beit3.plan(of).patches].tolist()
    most = max(wanted.count(code) for code in set(wanted))
    assert watch["image_unigram_accuracy"] == pytest.approx(most / len(wanted))
    assert 1 < watch["codebook_perplexity"] <= 64
    assert not any(value.requires_grad for value in watch.values())


@pytest.mark.parametrize("target", ["rpq_kmeans", "rpq_random", "pixel"])
def test_white_ground_is_trained_on_like_anything_else(
    vision: VisionEncoder, language: LanguageModel, target: str
) -> None:
    beit3, of = build(vision, language, target=target), make(many())
    white = ((1 - beit3.image_mean) / beit3.image_std).expand(3, 32, 32)
    images = of.images.clone()
    images[:, :, :16] = white[:, :16]
    beit3.prepare([images])
    half, blank = (beit3(with_images(of, each)) for each in (images, white.expand_as(images)))
    for losses in (half, blank):
        assert losses.terms["masked_image"].count == 6 * len(images)
        grads = torch.autograd.grad(total(losses), list(beit3.parameters()), allow_unused=True, retain_graph=True)
        assert all(grad.isfinite().all() for grad in grads if grad is not None)
    if target != "pixel":
        assert half.watch["image_unigram_accuracy"] == pytest.approx(0.5, abs=0.1)
        assert 2 < half.watch["codebook_perplexity"] < 2 * 64**0.5 + 0.5  # a half with one code, a half with up to 64
        assert blank.watch["image_unigram_accuracy"] == 1
        assert blank.watch["codebook_perplexity"] == pytest.approx(1)


# Degenerate documents


def test_all_text_batch_trains_on_text_and_leaves_the_encoder_alone(beit3: BEiT3) -> None:
    of = make([Doc("t", (words("t", length=8),))])
    losses = beit3(of)
    assert losses.terms["masked_image"].count == 0
    assert losses.terms["masked_text"].count == 1
    total(losses).backward()
    rest = [*beit3.vision.parameters(), *beit3.connector.parameters(), *beit3.image_head.parameters(), beit3.mask_token]
    assert all(p.grad is not None and (p.grad == 0).all() for p in rest)


def test_image_only_document_trains_on_the_image(beit3: BEiT3) -> None:
    losses = beit3(make([Doc("i", (IMAGE,))]))
    assert losses.terms["masked_text"].count == 0
    assert losses.terms["masked_image"].count == 6
    total(losses).backward()
    assert any((p.grad != 0).any() for p in beit3.vision.parameters())


def test_pixels_of_one_document_do_not_change_another(beit3: BEiT3) -> None:
    of = make(documents())
    plan = beit3.plan(of)
    image, _ = predictions(beit3, of, plan)
    visible = int((~plan.patches[0]).nonzero()[0])
    changed, _ = predictions(beit3, with_images(of, patch_changed(of.images, 0, visible)), plan)
    assert not torch.equal(changed[0], image[0])
    images_of_first = documents()[0].images
    assert torch.equal(changed[images_of_first:], image[images_of_first:])


def test_visible_text_changes_the_loss_and_its_id_is_not_embedded_when_hidden(beit3: BEiT3) -> None:
    of = make(documents()[:1])
    plan = beit3.plan(of)
    hidden = beit3.read(of, plan)[0]
    place = int(plan.text[0].nonzero()[0])
    again = beit3.read(with_ids(of, ROWS, 0, place, 5), plan)[0]
    assert torch.equal(hidden, again)  # the model reads the plan's ids, never the batch's


# The codebook


def test_kmeans_without_a_codebook_raises_and_says_what_to_do(vision: VisionEncoder, language: LanguageModel) -> None:
    beit3 = build(vision, language, target="rpq_kmeans")
    with pytest.raises(ValueError, match=r"prepare\(images\)"):
        beit3(make(many()))


def test_codebook_is_in_the_checkpoint(vision: VisionEncoder, language: LanguageModel) -> None:
    beit3, fresh = (build(vision, language, target="rpq_kmeans") for _ in range(2))
    beit3.prepare([make(many()).images])
    fresh.load_state_dict(beit3.state_dict())
    assert fresh.target.fingerprint() == beit3.target.fingerprint()
    torch.testing.assert_close(total(fresh(make(many()))), total(beit3(make(many()))), atol=0, rtol=0)


def test_prepare_is_deterministic(vision: VisionEncoder, language: LanguageModel) -> None:
    prints = set()
    for seed in range(2):
        torch.manual_seed(seed)
        beit3 = build(vision, language, target="rpq_kmeans")
        beit3.prepare(make(many()).images.split(7))
        prints.add(beit3.target.fingerprint())
    assert len(prints) == 1


def test_register_defaults() -> None:
    tiny = at_tiny("objectives", BEiT3)
    for config, codes in ((BEiT3.Config(), 8192), (tiny, 512)):
        assert (config.target, config.codes, config.code_width) == ("rpq_kmeans", codes, 16)
    assert BEiT3.Config().masks == MaskRules()
    assert replace(tiny.masks, min_block=16) == MaskRules()


def test_options_that_cannot_be_are_refused(vision: VisionEncoder, language: LanguageModel) -> None:
    with pytest.raises(ValueError, match="text_share_mono.*1.5"):
        MaskRules(text_share_mono=1.5)
    with pytest.raises(ValueError, match="0.9.*0.2"):
        MaskRules(mask_share=0.9, random_share=0.2)
    assert isinstance(build(vision, language, target="rpq_kmeans").target, CentroidCodes)


def prepare_on_a_rank(rank: int, folder: str, vision: VisionEncoder, language: LanguageModel) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    beit3 = build(vision, language, target="rpq_kmeans")
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(rank))
    beit3.prepare([images])
    torch.save({"codebook": beit3.target.codebook}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def prepare_with_a_seed_of_its_own(rank: int, folder: str, vision: VisionEncoder, language: LanguageModel) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    config = BEiT3.Config(codes=64, target="rpq_random", codebook_seed=rank)
    with pytest.raises(ValueError, match="different image targets"):
        BEiT3(config, vision, language, SPECIAL).prepare([])
    dist.destroy_process_group()


def test_ranks_with_other_targets_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vision: VisionEncoder, language: LanguageModel
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    args = (str(tmp_path), vision, language)
    mp.start_processes(prepare_with_a_seed_of_its_own, args, nprocs=2, start_method="fork")


def test_both_ranks_hold_the_codebook_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vision: VisionEncoder, language: LanguageModel
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    mp.start_processes(prepare_on_a_rank, (str(tmp_path), vision, language), nprocs=2, start_method="fork")
    held = [torch.load(tmp_path / f"{rank}.pt", weights_only=True)["codebook"] for rank in range(2)]
    alone = build(vision, language, target="rpq_kmeans")
    alone.prepare([torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))])
    assert torch.equal(held[0], held[1])
    assert torch.equal(held[0], alone.target.codebook)
