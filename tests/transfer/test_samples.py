"""Samples of a transfer: the same images for everybody, what the head said, small pictures."""

import base64
import io

from PIL import Image
from transfer_helpers import encoder, features, split, task

from transfer import caption
from transfer.features import extract
from transfer.samples import NEAREST, SAMPLES, SIDE, data_uri, sampled


def test_which_images_depends_on_the_ids_and_not_on_their_order():
    ids = [f"image {n}" for n in range(100)]
    chosen = {ids[place] for place in sampled(ids)}
    turned = ids[::-1]
    assert len(chosen) == SAMPLES and {turned[place] for place in sampled(turned)} == chosen
    assert chosen != set(ids[:SAMPLES]) and sampled(ids[:5]) == [0, 1, 2, 3, 4]


def test_retrieved_captions_are_the_nearest_and_marked_as_the_score_counts_them(tmp_path):
    the_task, test = task("retrieve"), extract(encoder(), split(30, captions=[1, 2, 3] * 10), tmp_path)
    found = the_task.evaluate(the_task.head(features(tmp_path, encoder()), 0), test)
    assert len(found.samples) == SAMPLES
    scores = {item["group_id"]: item["tr1"] for item in found.items if "tr1" in item}
    own = dict(zip(test.split.item_ids, test.split.captions, strict=True))
    for sample in found.samples:
        assert len(sample.said) == len(sample.right) == NEAREST and sample.meant == own[sample.item_id][0]
        assert sample.score == scores[sample.item_id]
        if sample.score in (0, 100):  # no ties
            assert sample.right[0] is (sample.score == 100)
        assert all(text in own[sample.item_id] for text, right in zip(sample.said, sample.right, strict=True) if right)


def test_written_captions_are_the_predictions_with_their_scores(tmp_path, monkeypatch):
    monkeypatch.setattr(caption.Caption, "predict", lambda self, head, test: [t[0] for t in test.split.captions])
    the_task, data = task("caption"), features(tmp_path)
    found = the_task.evaluate(the_task.head(data, 0), data)
    items = {item["item_id"]: item for item in found.items}
    assert len(found.samples) == min(SAMPLES, len(data))
    for sample in found.samples:
        assert sample.said == (items[sample.item_id]["prediction"],) and sample.right == ()
        assert (sample.score, sample.metric) == (items[sample.item_id]["cider"], "cider")


def test_pictures_are_small_and_keep_their_shape():
    for size, kind, kept in (((32, 20), "png", (32, 20)), ((900, 300), "jpeg", (SIDE, SIDE // 3))):
        uri = data_uri(Image.new("RGB", size, (200, 10, 30)))
        assert uri.startswith(f"data:image/{kind};base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert picture.size == kept and picture.convert("RGB").getpixel((5, 5))[0] > 180
