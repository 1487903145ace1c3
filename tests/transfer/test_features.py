"""Cached features: exact, joined by id, keyed by everything they depend on, never half written."""

import errno
import json
import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from transfer_helpers import constant_encoder, encoder, pixels, split, vision

from data.images import ImageTransform
from transfer import features as module
from transfer.encoder import Encoder, fingerprint
from transfer.features import FeatureSplit, extract


def expected(of, data):
    """Each image alone, without batches or cache."""
    of.module.eval()
    with torch.no_grad():
        rows = [of.module.tokens(pixels(of, data, i))[0] for i in range(len(data))]
    return torch.stack(rows)


@pytest.mark.parametrize("batch", [1, 5, 256])
def test_features_are_the_encoders_tokens_with_the_class_token_first(tmp_path, batch):
    of, data = encoder(), split(12)
    got = extract(of, data, tmp_path, batch=batch)
    assert (got.tokens, got.width, got.features.patches) == (5, 64, slice(1, 5))
    torch.testing.assert_close(got.gather(np.arange(12)), expected(of, data), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        patches = of.module(pixels(of, data, 3))
    torch.testing.assert_close(got.gather(np.array([3]))[:, got.features.patches], patches, rtol=1e-5, atol=1e-5)


def test_a_second_encoder_decodes_the_check_only_and_sees_the_same_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_held", {})
    data, loaded = split(100), []
    counting = replace(data, load=lambda place: loaded.append(place) or data.load(place))
    extract(encoder(0), counting, tmp_path / "one")
    assert len(loaded) == 100 + module.CHECKED
    found = extract(encoder(1), counting, tmp_path / "one").gather(np.arange(100))
    assert len(loaded) == 100 + 2 * module.CHECKED
    monkeypatch.setattr(module, "CROP_BYTES", 0)
    monkeypatch.setattr(module, "_held", {})
    assert torch.equal(found, extract(encoder(1), data, tmp_path / "other").gather(np.arange(100)))


def test_second_use_reads_the_cache_and_recomputes_only_the_check(tmp_path, monkeypatch):
    of, data, counted = encoder(), split(100), []
    compute = module._compute
    monkeypatch.setattr(module, "_compute", lambda *a: counted.append(len(a[1])) or compute(*a))
    first = extract(of, data, tmp_path).gather(np.arange(100))
    assert sum(counted) == 100 + module.CHECKED
    counted.clear()
    assert torch.equal(extract(of, data, tmp_path).gather(np.arange(100)), first)
    assert counted == [module.CHECKED]


def test_items_are_joined_by_id_and_never_by_order(tmp_path):
    data = split(12)
    stored = extract(encoder(), data, tmp_path)
    shuffled = np.random.default_rng(0).permutation(12)
    again = FeatureSplit(replace(data, item_ids=tuple(data.item_ids[i] for i in shuffled)), stored.features)
    assert torch.equal(again.gather(np.arange(12)), stored.gather(shuffled))
    with pytest.raises(ValueError, match="1 of 12 items.*'other'"):
        FeatureSplit(replace(data, item_ids=("other", *data.item_ids[1:])), stored.features)


def test_the_key_covers_weights_transform_split_precision_versions_and_code(tmp_path, monkeypatch):
    of, data = encoder(), split(6)

    def key(of=of, data=data, precision="fp32"):
        return module._key(of, of.digest, data, precision)

    base = key()
    assert key(encoder()) == base
    changed = [
        key(encoder(seed=1)),
        key(Encoder(of.module, ImageTransform(size=16, interpolation="bilinear"))),
        key(data=replace(data, digest="other")),
        key(data=replace(data, item_ids=data.item_ids[::-1])),
        key(precision="bf16"),
    ]
    for name in ("torch", "timm"):
        with monkeypatch.context() as patch:
            patch.setattr(module, "version", lambda package, name=name: "0" if package == name else "1.0")
            changed.append(key())
    with monkeypatch.context() as patch:
        patch.setattr(module, "FORMAT", 999)
        changed.append(key())
    assert len({base, *changed}) == 1 + len(changed)


def test_fingerprint_sees_every_parameter_and_buffer():
    net = torch.nn.BatchNorm1d(3)
    seen = {fingerprint(net)}
    for tensor in net.state_dict().values():
        tensor.add_(1)
        seen.add(fingerprint(net))
    assert len(seen) == 1 + len(net.state_dict())
    assert fingerprint(vision()) == fingerprint(vision())


def test_stale_features_are_refused(tmp_path):
    of, data = encoder(), split(12)
    folder = extract(of, data, tmp_path).features.folder
    values = np.fromfile(folder / "tokens.bin", dtype=np.float32)
    (values * 1.2).astype(np.float32).tofile(folder / "tokens.bin")
    with pytest.raises(RuntimeError, match=f"(?s){folder.name}.*12 items recomputed.*delete"):
        extract(of, data, tmp_path)


def test_two_swapped_items_are_refused(tmp_path):
    of, data = encoder(), split(12)
    folder = extract(of, data, tmp_path).features.folder
    values = np.fromfile(folder / "tokens.bin", dtype=np.float32).reshape(12, 5, 64)
    values[[0, 1]] = values[[1, 0]]
    values.tofile(folder / "tokens.bin")
    with pytest.raises(RuntimeError, match="recomputed"):
        extract(of, data, tmp_path)


def test_bf16_is_stored_as_bfloat16(tmp_path):
    data = split(8)
    full, half = (extract(encoder(), data, tmp_path, precision=p).gather(np.arange(8)) for p in ("fp32", "bf16"))
    assert half.dtype == torch.float32
    assert torch.equal(half, half.bfloat16().float())
    assert not torch.equal(full, half)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.1)


def test_bf16_keeps_what_would_overflow_in_fp16(tmp_path):
    of = constant_encoder()
    with torch.no_grad():
        of.module.value[0, 0] = 1e6
    got = extract(of, split(4), tmp_path, precision="bf16").gather(np.arange(4))
    assert got[0, 0, 0] == pytest.approx(1e6, rel=1e-2)


def test_the_encoder_is_left_as_it_was(tmp_path):
    of = encoder()
    of.module.train()
    before = of.digest
    extract(of, split(6), tmp_path)
    assert of.module.training and of.digest == before
    assert all(parameter.grad is None for parameter in of.module.parameters())


def test_drop_path_is_off_although_the_encoder_was_training(tmp_path):
    of = encoder()
    of.module.vit.blocks[0].drop_path1 = torch.nn.Dropout(0.9)
    of.module.train()
    data = split(6)
    got = extract(of, data, tmp_path).gather(np.arange(6))
    torch.testing.assert_close(got, expected(of, data), rtol=1e-5, atol=1e-5)


def test_a_forward_pass_that_changes_the_encoder_is_an_error(tmp_path):
    of = encoder()
    tokens = of.module.tokens

    def moving(images):
        of.module.vit.norm.bias.data.add_(1e-3)
        return tokens(images)

    of.module.tokens = moving
    with pytest.raises(RuntimeError, match="weights changed|recomputed"):
        extract(of, split(6), tmp_path)


def test_too_small_a_disk_is_one_clear_error_before_any_work(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="toy/train.* need .* MB but 0 MB are free") as caught:
        extract(encoder(), split(6), tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match="free some space"):
        extract(encoder(), split(6), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_crash_while_writing_is_never_read_as_features(tmp_path, monkeypatch):
    of, data = encoder(), split(6)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_publish", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            extract(of, data, tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(extract(of, data, tmp_path)) == 6


def test_what_a_killed_extraction_left_goes_and_a_living_one_stays(tmp_path):
    of, data = encoder(), split(6)
    extract(of, data, tmp_path)
    (whole,) = tmp_path.iterdir()
    name = whole.name
    shutil.rmtree(whole)
    for other, age in (("dead", 7200), ("alive", 10)):
        (partial := tmp_path / f"{name}.partial-{other}").mkdir()
        (partial / "tokens.bin").write_bytes(b"x")
        for path in (partial / "tokens.bin", partial):
            os.utime(path, (time.time() - age, time.time() - age))
    extract(of, data, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}.partial-alive"}


def test_losing_the_race_to_another_process_keeps_the_winner(tmp_path, monkeypatch):
    of, data = encoder(), split(6)
    winner = extract(of, data, tmp_path).features.folder
    mark = json.loads((winner / "manifest.json").read_text()) | {"mark": 1}
    (winner / "manifest.json").write_text(json.dumps(mark))
    module._write(winner, of, data, "fp32", 4, 1, {})
    assert json.loads((winner / "manifest.json").read_text())["mark"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [winner.name]


def test_duplicate_and_missing_items_are_refused(tmp_path):
    data = split(6)
    twice = replace(data, item_ids=(data.item_ids[0], *data.item_ids[:5]))
    with pytest.raises(ValueError, match=f"{data.item_ids[0]!r} twice"):
        extract(encoder(), twice, tmp_path)
    with pytest.raises(ValueError, match="no items"):
        extract(encoder(), replace(data, item_ids=()), tmp_path)


def test_a_collapsed_and_a_broken_encoder_can_be_cached(tmp_path):
    of = constant_encoder()
    assert extract(of, split(6), tmp_path).gather(np.arange(6)).std(dim=0).max() == 0
    with torch.no_grad():
        of.module.value[0, 0] = torch.nan
    assert extract(of, split(6), tmp_path).gather(np.arange(6))[:, 0, 0].isnan().all()
