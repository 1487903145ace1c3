"""Loss primitives against open_clip, slow written-out loops, closed forms, and themselves on two processes."""

import math
from itertools import combinations, permutations
from pathlib import Path

import pytest
import torch
from helpers import VOCABULARY, batch, documents, pairs
from open_clip.loss import ClipLoss
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn import functional as F

from data.batch import Layout, TokenType
from objectives import diagnostics
from objectives.functional import (
    TEXT_TARGETS,
    Losses,
    Term,
    info_nce,
    masked_token_loss,
    matching_loss,
    means,
    regression_loss,
    target_mask,
    token_nll,
    total,
)
from objectives.gather import gather_rows, world_size

SCALE = torch.tensor(1 / 0.07)


def features(n: int, d: int = 16) -> tuple[Tensor, Tensor]:
    return torch.randn(n, d, requires_grad=True), torch.randn(n, d, requires_grad=True)


def slow_info_nce(v: Tensor, t: Tensor, scale: float, groups: list[int] | None = None) -> float:
    """Pair by pair, with nothing but dot products and exp."""
    v, t = F.normalize(v.detach().double(), dim=-1), F.normalize(t.detach().double(), dim=-1)
    loss = 0.0
    for i in range(len(v)):
        rivals = [j for j in range(len(v)) if j == i or groups is None or groups[j] != groups[i]]
        for a, b in ((v, t), (t, v)):
            exps = [math.exp(scale * float(a[i] @ b[j])) for j in rivals]
            loss -= math.log(exps[rivals.index(i)] / sum(exps)) / 2
    return loss


# Contrast


def test_info_nce_equals_open_clip_with_gradients() -> None:  # INV-CLIP-1
    v, t = features(9)
    scale = SCALE.clone().requires_grad_()
    term, _ = info_nce(v, t, scale)
    ours = torch.autograd.grad(term.sum / term.count, (v, t, scale))
    loss = ClipLoss()(F.normalize(v, dim=-1), F.normalize(t, dim=-1), scale)
    theirs = torch.autograd.grad(loss, (v, t, scale))
    torch.testing.assert_close(term.sum / term.count, loss)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_info_nce_equals_the_loop() -> None:
    v, t = features(6)
    term, watch = info_nce(v, t, SCALE)
    assert term.sum.item() == pytest.approx(slow_info_nce(v, t, SCALE.item()), rel=1e-5)
    assert term.count == watch["con_n"] == 6
    assert watch["con_bound"].item() == pytest.approx(math.log(6) - term.mean().item(), rel=1e-5)
    assert not any(value.requires_grad for value in watch.values())


def test_info_nce_skips_rivals_of_the_same_group() -> None:
    v, t = features(6)
    groups = [7, 7, 2**40, 5, 2**40, 6]
    term, watch = info_nce(v, t, SCALE, torch.tensor(groups))
    assert term.sum.item() == pytest.approx(slow_info_nce(v, t, SCALE.item(), groups), rel=1e-5)
    left = [math.log(1 + sum(group != own for group in groups)) for own in groups]
    assert watch["con_bound"].item() == pytest.approx(sum(left) / 6 - term.mean().item(), rel=1e-5)
    everyone, watch = info_nce(v, t, SCALE, torch.zeros(6, dtype=torch.int64))
    assert everyone.sum.item() == 0 and watch["con_bound"] == 0  # nothing is told apart


def test_info_nce_spreads_a_share_of_each_target_over_all_pairs() -> None:
    v, t = features(6)
    term, watch = info_nce(v, t, SCALE, smoothing=0.3)
    u, w = F.normalize(v.detach().double(), dim=-1), F.normalize(t.detach().double(), dim=-1)
    by_hand = 0.0
    for a, b in ((u, w), (w, u)):
        for i in range(6):
            log_p = (SCALE.double() * (a[i] @ b.T)).log_softmax(dim=0)
            by_hand -= float(0.7 * log_p[i] + 0.3 * log_p.mean()) / 2
    assert term.sum.item() == pytest.approx(by_hand, rel=1e-5)
    plain = info_nce(v, t, SCALE)[1]["con_bound"].item()
    assert watch["con_bound"].item() == pytest.approx(plain, rel=1e-5)  # a bound on information is never smoothed


def test_info_nce_closed_forms() -> None:  # INV-CLIP-2
    eye = torch.eye(8, 16)
    term, watch = info_nce(eye, eye, torch.tensor(100.0))
    assert term.mean() < 1e-6
    assert watch["con_acc"] == 1
    same = torch.ones(8, 16)
    assert info_nce(same, same, SCALE)[0].mean().item() == pytest.approx(math.log(8), rel=1e-6)


def test_info_nce_is_symmetric() -> None:  # INV-CLIP-3
    v, t = features(7)
    torch.testing.assert_close(info_nce(v, t, SCALE)[0].sum, info_nce(t, v, SCALE)[0].sum, atol=1e-5, rtol=0)


def test_info_nce_gradient_is_orthogonal_to_the_features() -> None:  # INV-CLIP-4
    v, t = features(7)
    info_nce(v, t, SCALE)[0].sum.backward()
    assert v.grad.abs().max() > 1e-3
    assert (v.grad * v).sum(dim=1).abs().max() < 1e-5
    assert (t.grad * t).sum(dim=1).abs().max() < 1e-5


@pytest.mark.parametrize("n", [0, 1])
def test_info_nce_of_too_few_pairs_is_a_connected_zero(n: int) -> None:
    v, t = features(n)
    scale = SCALE.clone().requires_grad_()
    term, watch = info_nce(v, t, scale)
    loss = total(Losses({"con": term}, {"con": 1.0}, watch))
    loss.backward()
    assert loss == 0
    assert watch["con_n"] == n
    assert v.grad.shape == v.shape and v.grad.abs().sum() == t.grad.abs().sum() == scale.grad == 0


def test_info_nce_is_fp32_inside_autocast() -> None:
    v, t = features(8)
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = info_nce(v, t, SCALE)
    assert inside.sum.dtype == torch.float32
    assert torch.equal(inside.sum, info_nce(v, t, SCALE)[0].sum)


# Tokens


def slow_next_token(hidden: Tensor, rows, head: Tensor, targets, extra=None) -> tuple[list[float], list[int]]:
    """Target by target, in reading order: full softmax by hand."""
    nll, kinds = [], []
    for i in range(rows.input_ids.shape[0]):
        for q in range(1, rows.input_ids.shape[1]):
            kind = int(rows.token_type[i, q])
            if kind in {int(each) for each in targets} and (extra is None or extra[i, q]):
                logits = [float(hidden[i, q - 1].double() @ row.double()) for row in head]
                nll.append(math.log(sum(map(math.exp, logits))) - logits[int(rows.input_ids[i, q])])
                kinds.append(kind)
    return nll, kinds


@pytest.mark.parametrize("layout", [Layout.INTERLEAVED, Layout.MEDIA_TOKEN])
@pytest.mark.parametrize("targets", [TEXT_TARGETS, TEXT_TARGETS | {TokenType.BOI}, frozenset({TokenType.EOI})])
def test_next_token_equals_the_loop(layout: Layout, targets: frozenset[TokenType]) -> None:
    rows = batch(documents(), [layout], slots=3)[layout]
    hidden, head = torch.randn(*rows.input_ids.shape, 8), torch.randn(VOCABULARY, 8)
    loss = token_nll(hidden, rows, lambda y: y @ head.T, targets)
    nll, kinds = slow_next_token(hidden, rows, head, targets)
    assert loss.kind.tolist() == kinds
    torch.testing.assert_close(loss.nll, torch.tensor(nll), atol=1e-4, rtol=1e-5)
    term = loss.term()
    assert (term.sum.item(), term.count.item()) == (pytest.approx(sum(nll), rel=1e-5), len(nll))
    text = [each for each, kind in zip(nll, kinds, strict=True) if kind in (TokenType.TEXT, TokenType.EOS)]
    assert loss.text_nll().item() == pytest.approx(sum(text) / max(len(text), 1), rel=1e-5)


def test_smoothed_targets_change_what_is_trained_and_not_what_is_watched() -> None:
    rows = batch(documents(), [Layout.INTERLEAVED], slots=3)[Layout.INTERLEAVED]
    hidden, head = torch.randn(*rows.input_ids.shape, 8), torch.randn(VOCABULARY, 8)
    plain, smoothed = (token_nll(hidden, rows, lambda y: y @ head.T, TEXT_TARGETS, smoothing=s) for s in (0.0, 0.2))
    assert torch.equal(plain.loss, plain.nll) and torch.equal(plain.nll, smoothed.nll)
    assert torch.equal(plain.text_nll(), smoothed.text_nll())
    targets = ((rows.token_type == TokenType.TEXT) | (rows.token_type == TokenType.EOS)).nonzero().tolist()
    everywhere = torch.stack([-(head @ hidden[b, q - 1]).log_softmax(dim=0).mean() for b, q in targets])
    torch.testing.assert_close(smoothed.term().sum, (0.8 * plain.nll + 0.2 * everywhere).sum())


def test_extra_mask_restricts_targets_by_their_own_position() -> None:
    rows = batch(documents(), [Layout.INTERLEAVED], slots=2)[Layout.INTERLEAVED]
    extra = torch.rand(rows.input_ids.shape) < 0.5
    hidden, head = torch.randn(*rows.input_ids.shape, 8), torch.randn(VOCABULARY, 8)
    nll, _ = slow_next_token(hidden, rows, head, TEXT_TARGETS, extra)
    term = token_nll(hidden, rows, lambda y: y @ head.T, TEXT_TARGETS, extra).term()
    assert 0 < len(nll) < int(target_mask(rows, TEXT_TARGETS).sum())
    assert (term.sum.item(), term.count.item()) == (pytest.approx(sum(nll), rel=1e-5), len(nll))


def test_head_runs_on_targets_only() -> None:
    rows = batch(pairs(3), [Layout.IMAGE_FIRST], slots=4)[Layout.IMAGE_FIRST]
    seen = []

    def head(y: Tensor) -> Tensor:
        seen.append(len(y))
        return torch.zeros(len(y), VOCABULARY)

    term = token_nll(torch.randn(*rows.input_ids.shape, 8), rows, head, TEXT_TARGETS).term()
    assert seen == [int(term.count)] == [sum(len(doc.text) + 1 for doc in pairs(3))]
    assert term.mean().item() == pytest.approx(math.log(VOCABULARY), rel=1e-6)


def test_no_targets_is_a_connected_zero() -> None:
    rows = batch(pairs(2), [Layout.TEXT_ONLY], slots=4)[Layout.TEXT_ONLY]
    hidden = torch.randn(*rows.input_ids.shape, 8, requires_grad=True)
    loss = token_nll(hidden, rows, lambda y: y @ torch.randn(8, VOCABULARY), frozenset({TokenType.EOI}))
    value = total(Losses({"gen": loss.term()}, {"gen": 1.0}, {}))
    value.backward()
    assert value == 0
    assert hidden.grad.abs().sum() == 0
    assert loss.text_nll() == 0


def test_token_loss_is_fp32_inside_autocast() -> None:
    rows = batch(pairs(2), [Layout.IMAGE_FIRST], slots=2)[Layout.IMAGE_FIRST]
    head = nn.Linear(8, VOCABULARY)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(torch.randn(2, 8)).dtype == torch.bfloat16
        term = token_nll(torch.randn(*rows.input_ids.shape, 8), rows, head, TEXT_TARGETS).term()
        assert term.sum.dtype == torch.float32


def test_masked_token_loss_equals_the_loop() -> None:
    hidden, head = torch.randn(3, 5, 8), torch.randn(11, 8)
    targets, masked = torch.randint(0, 11, (3, 5)), torch.rand(3, 5) < 0.4
    term = masked_token_loss(hidden, targets, masked, lambda y: y @ head.T)
    expected = [
        -torch.log_softmax(head @ hidden[i, j], dim=0)[targets[i, j]].item()
        for i in range(3)
        for j in range(5)
        if masked[i, j]
    ]
    assert (term.sum.item(), term.count.item()) == (pytest.approx(sum(expected), rel=1e-5), len(expected))


def test_matching_loss_equals_the_loop() -> None:
    logits, matched = torch.randn(6, 2), torch.tensor([True, False, True, True, False, False])
    expected = sum(
        math.log(math.exp(no) + math.exp(yes)) - (yes if each else no)
        for (no, yes), each in zip(logits.tolist(), matched.tolist(), strict=True)
    )
    term = matching_loss(logits, matched)
    assert (term.sum.item(), term.count.item()) == (pytest.approx(expected, rel=1e-5), 6)


def test_regression_loss_is_a_mean_over_width() -> None:
    prediction, target = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    term = regression_loss(prediction, target)
    expected = sum(
        sum((p - t) ** 2 for p, t in zip(a, b, strict=True)) / 4
        for a, b in zip(prediction.tolist(), target.tolist(), strict=True)
    )
    assert (term.sum.item(), term.count.item()) == (pytest.approx(expected, rel=1e-5), 5)
    term.sum.backward()
    torch.testing.assert_close(prediction.grad, 2 * (prediction - target).detach() / 4)
    torch.testing.assert_close(target.grad, -prediction.grad)  # a target that is not to learn comes detached


# Total


def test_total_weighs_means_and_ablates_exactly() -> None:  # INV-G-1
    a, b = torch.tensor(6.0, requires_grad=True), torch.tensor(10.0, requires_grad=True)
    terms = {"a": Term(a * 1.0, torch.tensor(3.0)), "b": Term(b * 1.0, torch.tensor(4.0))}
    losses = Losses(terms, {"a": 0.5, "b": 0.0}, {})
    value = total(losses)
    value.backward()
    assert value.item() == pytest.approx(1.0)
    assert (a.grad.item(), b.grad.item()) == (pytest.approx(1 / 6), 0.0)
    assert {name: mean.item() for name, mean in means(losses).items()} == {"a": 2.0, "b": 2.5}


def test_total_refuses_terms_without_weights() -> None:
    losses = Losses({"a": Term(torch.zeros(()), torch.zeros(()))}, {"b": 1.0}, {})
    with pytest.raises(ValueError, match=r"'a'.*'b'"):
        total(losses)


def test_one_process_needs_no_process_group() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    rows, offset = gather_rows(x)
    assert world_size() == 1 and not dist.is_initialized()
    assert rows is x and offset == 0


# Two processes


def data(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """n pairs of raw features and their groups, the same in every process."""
    g = torch.Generator().manual_seed(5)
    return torch.randn(n, 6, generator=g), torch.randn(n, 6, generator=g), torch.randint(0, 3, (n,), generator=g)


def model() -> nn.Module:
    torch.manual_seed(1)
    parts = {"v": nn.Linear(6, 4), "t": nn.Linear(6, 4), "scale": nn.Linear(1, 1, bias=False)}
    return nn.ModuleDict(parts)


def step(rows: slice, tokens: slice, n: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, gradients and logged means of the pairs in `rows` and the squared errors in `tokens`."""
    net, (x, y, groups) = model(), data(n)
    scale = net["scale"](torch.ones(1))[0].exp() * 10
    v, t = net["v"](x[rows]), net["t"](y[rows])
    z = torch.arange(24.0).reshape(4, 6)[tokens]
    terms = {
        "con": info_nce(v, t, scale)[0],
        "apart": info_nce(v, t, scale, groups[rows])[0],
        "reg": regression_loss(net["v"](z), torch.ones(len(z), 4)),
    }
    losses = Losses(terms, {"con": 0.3, "apart": 0.5, "reg": 1.0}, {})
    loss = total(losses)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in net.named_parameters()}, means(losses)


def worker(rank: int, folder: str, cases: list[tuple[int, int]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = []
    for a, b in cases:
        # One token item on rank 0, three on rank 1: ranks differ in every count.
        rows, tokens = (slice(0, a), slice(0, 1)) if rank == 0 else (slice(a, a + b), slice(1, 4))
        loss, grads, logged = step(rows, tokens, a + b)
        for x in (loss, *grads.values()):  # what data parallelism does: the mean over ranks
            dist.all_reduce(x)
            x /= 2
        results.append((loss, grads, logged))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # INV-D-1, INV-D-2
    cases = [(3, 0), (5, 2), (4, 4), (0, 1), (0, 0)]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    # Forked, not spawned: importing torch again in two children costs more than everything else here.
    mp.start_processes(worker, (str(tmp_path), cases), nprocs=2, start_method="fork")
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for (a, b), (loss, grads, logged) in zip(cases, results, strict=True):
            expected, expected_grads, expected_logged = step(slice(0, a + b), slice(0, 4), a + b)
            torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
            assert grads.keys() == expected_grads.keys()
            for name, grad in grads.items():
                torch.testing.assert_close(grad, expected_grads[name], atol=1e-5, rtol=1e-5)
            for name, mean in logged.items():
                torch.testing.assert_close(mean, expected_logged[name], atol=1e-5, rtol=1e-5)


# Diagnostics


def test_identical_features_are_collapsed() -> None:
    x = torch.randn(1, 16).expand(10, 16)
    assert diagnostics.feature_std_ratio(x).item() == pytest.approx(0, abs=1e-5)
    assert diagnostics.mean_cosine(x).item() == pytest.approx(1, abs=1e-5)
    assert diagnostics.rankme(x).item() == pytest.approx(1, abs=1e-3)
    assert diagnostics.uniformity(x).item() == pytest.approx(0, abs=1e-4)
    assert diagnostics.patch_cosine(x[None]).item() == pytest.approx(1, abs=1e-5)


def test_orthonormal_features_are_healthy() -> None:
    n = 8
    x = 3 * torch.eye(n)  # every channel is 1 once and 0 otherwise
    assert diagnostics.feature_std_ratio(x).item() == pytest.approx(math.sqrt(n * (1 / n) * (1 - 1 / n)), rel=1e-5)
    assert diagnostics.mean_cosine(x).item() == pytest.approx(0, abs=1e-6)
    assert diagnostics.rankme(x).item() == pytest.approx(n, rel=1e-5)
    assert diagnostics.uniformity(x).item() == pytest.approx(-4, rel=1e-5)
    half = torch.stack([x, torch.ones(n, n)])  # one image of orthogonal patches, one of equal patches
    assert diagnostics.patch_cosine(half).item() == pytest.approx(0.5, abs=1e-6)


def test_diagnostics_equal_the_loops() -> None:
    x, y = torch.randn(7, 5), torch.randn(7, 5)
    u, w = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
    cosines = [float(u[i] @ u[j]) for i, j in permutations(range(7), 2)]
    assert diagnostics.mean_cosine(x).item() == pytest.approx(sum(cosines) / 42, abs=1e-5)
    kernel = [math.exp(-2 * float((u[i] - u[j]).square().sum())) for i, j in combinations(range(7), 2)]
    assert diagnostics.uniformity(x).item() == pytest.approx(math.log(sum(kernel) / 21), rel=1e-4)
    assert diagnostics.alignment(x, y).item() == pytest.approx(float((u - w).square().sum() / 7), rel=1e-5)
    sigma = torch.linalg.svdvals(x.double())
    entropy = -sum(float(s / sigma.sum()) * math.log(float(s / sigma.sum())) for s in sigma)
    assert diagnostics.rankme(x).item() == pytest.approx(math.exp(entropy), rel=1e-5)
    assert diagnostics.same_document_share(torch.tensor([4, 4, 9, 4])).item() == pytest.approx(6 / 12)


def test_contrasted_pairs_are_watched_for_alignment_and_uniformity() -> None:
    v, t = features(6)
    u, w = F.normalize(v.detach(), dim=-1), F.normalize(t.detach(), dim=-1)
    watch = info_nce(v, t, SCALE)[1]
    assert watch["alignment"].item() == pytest.approx(float((u - w).square().sum(dim=1).mean()), rel=1e-5)
    kernel = [math.exp(-2 * float((u[i] - u[j]).square().sum())) for i, j in combinations(range(6), 2)]
    assert watch["uniformity"].item() == pytest.approx(math.log(sum(kernel) / 15), rel=1e-4)
    assert not {"alignment", "uniformity"} & info_nce(v[:1], t[:1], SCALE)[1].keys()


def test_norm_ratio_compares_what_enters_the_language_model() -> None:
    visual, words = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.5], [0.3, 0.4], [0.5, 0.0]])
    assert diagnostics.norm_ratio(visual, words).item() == pytest.approx(3 / 0.5)


def test_rankme_of_features_that_are_not_finite_is_nan_and_raises_nothing() -> None:
    assert diagnostics.rankme(torch.tensor([[1.0, math.nan], [0.0, 1.0]])).isnan()


def test_rankme_of_two_equal_directions_is_two() -> None:
    x = torch.zeros(10, 16)
    x[:5, 0], x[5:, 1] = 2.0, -2.0
    assert diagnostics.rankme(x).item() == pytest.approx(2, rel=1e-5)


def test_collapse_bundle() -> None:
    x = torch.randn(300, 3, 8, requires_grad=True)
    watch = diagnostics.collapse(x)
    assert watch.keys() == {"feature_std_ratio", "mean_cosine", "rankme", "patch_cosine"}
    few = x[:256].detach()  # of a large batch, the first images only
    for name in ("feature_std_ratio", "mean_cosine", "rankme"):
        assert torch.equal(watch[name], getattr(diagnostics, name)(few.mean(dim=1)))
    assert torch.equal(watch["patch_cosine"], diagnostics.patch_cosine(few))
    assert not any(value.requires_grad for value in watch.values())
    assert diagnostics.collapse(x[:1]) == {}
    assert "patch_cosine" not in diagnostics.collapse(x[:, :1])  # an encoder of one patch
    with pytest.raises(ValueError, match="at least 2; got 1"):
        diagnostics.mean_cosine(x[:1, 0])
