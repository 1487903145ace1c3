"""The embedded corpus: equal specs write equal bytes, the real readers read it, and it is what its numbers declare."""

import errno
import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data.batch import Split
from data.corpora import open_corpus
from data.document import Bad
from data.images import open_image
from data.loading.readable import training_pairs
from data.readers import downstream
from data.readers.imagenet import imagenet
from data.toyworld import write
from data.toyworld.language import CAPTIONS, DISTRACTORS, EMPTY_LEADS, EMPTY_TITLES, HELD_OUT, NAMES, sample_page
from data.toyworld.patterns import COLOURS, PATTERNS, PLAIN, WAVY, Scene, Style, render
from data.toyworld.rules import DocumentRules
from data.toyworld.spec import ToyworldSpec
from data.toyworld.write import ensure_toyworld

SPEC = ToyworldSpec(
    documents=700,
    documents_per_shard=400,
    laion_pairs=60,
    transfer_train=72,
    transfer_val=8,
    classification_test=48,
    caption_test=30,
)
TRAINING = ("mmc4", "laion", "retrieval_train", "caption_train", "imagenet train")


class Drawn:
    """Scenes and styles by the part of the corpus they were drawn for."""

    def __init__(self) -> None:
        self.scenes: dict[str, list[Scene]] = {}
        self.styles: dict[str, set[Style]] = {}
        self.part = ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Drawn]]:
    """The corpus of SPEC, and what its pictures show."""
    drawn = Drawn()
    with pytest.MonkeyPatch.context() as patch:
        stream, render = write.generator, write.render

        def name(*parts: str | int) -> object:
            _, _, part, rest = parts
            drawn.part = part if isinstance(rest, int) else f"{part} {rest}"
            return stream(*parts)

        def look(scenes: list[Scene], style: Style, rng: object) -> object:
            drawn.scenes.setdefault(drawn.part, []).extend(scenes)
            drawn.styles.setdefault(drawn.part, set()).add(style)
            return render(scenes, style, rng)

        patch.setattr(write, "generator", name)
        patch.setattr(write, "render", look)
        yield ensure_toyworld(tmp_path_factory.mktemp("world"), SPEC), drawn


def fingerprints(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def splits(folder: Path) -> list[Split]:
    return [
        imagenet(folder / "imagenet", "train"),
        imagenet(folder / "imagenet", "val"),
        downstream.karpathy(folder / "coco" / "dataset_coco.json", folder / "coco" / "images", "val"),
        downstream.karpathy(folder / "coco" / "dataset_coco.json", folder / "coco" / "images", "test"),
        downstream.karpathy(folder / "flickr30k" / "dataset_flickr30k.json", folder / "flickr30k" / "images", "test"),
        downstream.nocaps(folder / "nocaps" / "nocaps_val_captions.json", folder / "nocaps" / "val"),
        training_pairs(folder / "retrieval_train", "retrieval_train", None, max_broken=0.0),
        training_pairs(folder / "caption_train", "caption_train", "top_caption", max_broken=0.0),
    ]


def test_equal_specs_write_equal_bytes(tmp_path: Path) -> None:
    spec = ToyworldSpec(
        documents=30, documents_per_shard=16, laion_pairs=9, transfer_train=24, transfer_val=3,
        classification_test=24, caption_test=5,
    )  # fmt: skip
    one, two = ensure_toyworld(tmp_path / "one", spec), ensure_toyworld(tmp_path / "two", spec)
    assert one.name == two.name == spec.folder_name
    assert fingerprints(one) == fingerprints(two)


def test_another_spec_has_another_name() -> None:
    names = {
        SPEC.folder_name,
        ToyworldSpec().folder_name,
        ToyworldSpec(seed=1).folder_name,
        ToyworldSpec(rules=DocumentRules(redundancy=0.5)).folder_name,
        ToyworldSpec(rules=DocumentRules(one_subject=0.5)).folder_name,
    }
    assert len(names) == 5


@pytest.mark.parametrize("one_subject", [0.0, 0.5, 1.0])
def test_as_many_pictures_as_declared_show_the_subject_and_each_sentence_names_its_own(one_subject: float) -> None:
    """Where the title tells nothing of a picture, its sentence is as often about it as ever; within three sigma."""
    rng = np.random.default_rng(0)
    pages = [sample_page(rng, DocumentRules(redundancy=1.0, one_subject=one_subject)) for _ in range(400)]
    shows, names = [], []
    for page in pages:
        for scene, anchor in zip(page.scenes, page.anchors, strict=True):
            shows.append(NAMES[scene.pattern] in page.sentences[0])
            names.append(NAMES[scene.pattern] in page.sentences[anchor])
    wanted = one_subject + (1 - one_subject) / len(NAMES)  # one's own pattern is the document's by chance
    sigma = (wanted * (1 - wanted) / len(shows)) ** 0.5
    assert all(names) and abs(sum(shows) / len(shows) - wanted) <= 3 * sigma


def test_what_is_there_is_not_written_again(world: tuple[Path, Drawn], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_write", None)  # would fail
    assert ensure_toyworld(world[0].parent, SPEC) == world[0]


def test_the_readers_read_every_document(world: tuple[Path, Drawn]) -> None:
    mmc4, laion = open_corpus(world[0] / "mmc4"), open_corpus(world[0] / "laion")
    assert (len(mmc4), len(laion)) == (SPEC.documents, SPEC.laion_pairs)
    for corpus in (mmc4, laion):
        for index in range(len(corpus)):
            document = corpus[index]
            assert not isinstance(document, Bad), document
            assert document.images and all(document.segments)
            assert open_image(document.images[0]).size == (32, 32)
    for split in splits(world[0]):
        assert all(split.load(i).size == (32, 32) for i in range(len(split)))


def test_the_downstream_sets_have_their_sizes_and_captions(world: tuple[Path, Drawn]) -> None:
    train, val, coco_val, coco, flickr, nocaps, retrieval, captioning = splits(world[0])
    assert [len(split) for split in (train, val, coco_val)] == [72, 48, 8]
    assert [len(split) for split in (coco, flickr, nocaps)] == [30, 30, 30]
    assert [len(split) for split in (retrieval, captioning)] == [72, 72]
    for split, count in ((coco_val, 5), (coco, 5), (flickr, 5), (nocaps, 10), (retrieval, 1), (captioning, 1)):
        assert split.captions is not None
        assert all(len(texts) == len(set(texts)) == count for texts in split.captions), split.name
    for split in (train, val):
        assert split.labels is not None and set(split.labels) == set(range(len(PATTERNS)))
    assert train.labels != retrieval.labels


def test_labels_and_captions_say_what_the_pictures_show(world: tuple[Path, Drawn]) -> None:
    folder, drawn = world
    labels = [
        image.label
        for corpus in [open_corpus(folder / "mmc4")]
        for index in range(len(corpus))
        for image in corpus[index].images
    ]
    assert labels == [scene.pattern for scene in drawn.scenes["mmc4"]]
    *_, coco, flickr, nocaps, retrieval, captioning = splits(folder)
    parts = {"coco test": coco, "flickr30k test": flickr, "nocaps val": nocaps}
    parts |= {"retrieval_train": retrieval, "caption_train": captioning}
    for part, split in parts.items():
        for scene, texts in zip(drawn.scenes[part], split.captions, strict=True):
            for text in texts:
                words = text.split()
                assert NAMES[scene.pattern] in text, part
                assert {tuple(COLOURS)[scene.foreground], tuple(COLOURS)[scene.background]} <= set(words), part


def test_no_training_set_shows_a_held_out_combination(world: tuple[Path, Drawn]) -> None:
    drawn = world[1]
    for part in TRAINING:
        assert drawn.scenes[part]
        assert not HELD_OUT & {(scene.pattern, scene.foreground) for scene in drawn.scenes[part]}, part
    assert {(scene.pattern, scene.foreground) for scene in drawn.scenes["nocaps val"]} <= HELD_OUT
    two_splits = {f"{name} {split}" for name in ("coco", "flickr30k") for split in ("val", "test")}
    assert drawn.scenes.keys() == {*TRAINING, "imagenet val", "nocaps val", *two_splits}


def test_every_pattern_is_shown_in_every_colour_but_one() -> None:
    assert len(HELD_OUT) == len(PATTERNS)
    assert {pattern for pattern, _ in HELD_OUT} == set(range(len(PATTERNS)))


@pytest.mark.parametrize("part", ["coco test", "flickr30k test"])
def test_a_perfect_retriever_would_score_100(world: tuple[Path, Drawn], part: str) -> None:
    assert len(set(world[1].scenes[part])) == len(world[1].scenes[part]) == SPEC.caption_test


def test_only_the_flickr_analogue_is_drawn_in_the_second_style(world: tuple[Path, Drawn]) -> None:
    for part, styles in world[1].styles.items():
        assert styles == ({WAVY} if part.startswith("flickr30k") else {PLAIN}), part


def test_a_foreground_is_never_its_background(world: tuple[Path, Drawn]) -> None:
    assert all(scene.foreground != scene.background for scenes in world[1].scenes.values() for scene in scenes)


@pytest.mark.parametrize("redundancy", [0.0, 0.5, 0.9, 1.0])
def test_the_declared_redundancy_is_the_measured_one(tmp_path: Path, redundancy: float) -> None:
    """Share of pictures whose sentence names the subject, and share of titles that do; within three sigma."""
    spec = ToyworldSpec(
        documents=300, laion_pairs=24, transfer_train=24, transfer_val=1, classification_test=24, caption_test=1,
        rules=DocumentRules(redundancy=redundancy),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        blank = Image.new("RGB", (1, 1))
        patch.setattr(write, "render", lambda scenes, style, rng: [blank] * len(scenes))
        patch.setattr(write, "encoded", lambda pictures, kind: (b"x" for _ in pictures))  # texts only
        folder = ensure_toyworld(tmp_path, spec)
    beside, titles = [], []
    corpus = open_corpus(folder / "mmc4")
    for index in range(len(corpus)):
        document = corpus[index]
        assert not isinstance(document, Bad)
        name = NAMES[document.images[0].label]
        titles.append(name in document.segments[0])
        beside += [name in document.segments[anchor] for anchor in document.anchors]
    for told in (beside, titles):
        sigma = (redundancy * (1 - redundancy) / len(told)) ** 0.5
        assert abs(sum(told) / len(told) - redundancy) <= 3 * sigma


def test_the_background_is_never_named_in_pre_training(world: tuple[Path, Drawn]) -> None:
    corpus, scenes = open_corpus(world[0] / "mmc4"), iter(world[1].scenes["mmc4"])
    for index in range(len(corpus)):
        document = corpus[index]
        colours = {tuple(COLOURS)[next(scenes).foreground] for _ in document.images}
        words = set(" ".join(document.segments).split())
        assert words & set(COLOURS) <= colours


def test_captions_name_pattern_and_both_colours() -> None:
    assert len(set(CAPTIONS)) == 10
    assert all({"{colour}", "{name}", "{back}"} <= {f"{{{part}}}" for part in _fields(text)} for text in CAPTIONS)


def _fields(text: str) -> list[str]:
    import string

    return [name for _, name, _, _ in string.Formatter().parse(text) if name]


def test_the_formats_are_those_of_the_public_sets(world: tuple[Path, Drawn]) -> None:
    folder = world[0]
    with zipfile.ZipFile(folder / "mmc4" / "docs_shard_1_v2.jsonl.zip") as archive:
        lines = archive.read("docs_shard_1_v2.jsonl").decode().splitlines()
    assert len(lines) == 300
    line = json.loads(lines[0])
    assert {"url", "text_list", "image_info", "similarity_matrix"} <= line.keys()
    image = line["image_info"][0]
    assert line["similarity_matrix"][0][image["matched_text_index"]] == image["matched_sim"]
    assert (folder / "mmc4" / "images" / "1" / image["image_name"]).is_file()
    with tarfile.open(folder / "laion" / "00000.tar") as archive:
        names = archive.getnames()[:3]
        content = archive.extractfile(names[0])
        assert content is not None and Image.open(io.BytesIO(content.read())).format == "JPEG"
    assert [name.rpartition(".")[2] for name in names] == ["jpg", "txt", "json"]


# ---- what pictures and words are made of


def test_names_are_composed_of_ordinary_words_and_differ() -> None:
    assert len(set(NAMES)) == len(PATTERNS) == 24
    for pattern in PATTERNS:
        assert pattern.name.split() == [word for word in (pattern.width, pattern.direction, pattern.kind) if word]
    assert not any(one != other and one in other for one in NAMES for other in NAMES)  # a text names one subject only


def test_sentences_that_say_nothing_hold_no_word_of_a_pattern_or_colour() -> None:
    telling = {word for name in NAMES for word in name.split()} | set(COLOURS)
    for text in (*DISTRACTORS, *EMPTY_LEADS, *EMPTY_TITLES):
        assert not telling & set(text.split()), text


def clean(**changes: float) -> Style:
    """No nuisance but the ones a pattern itself has."""
    still = {"colour_jitter": 0, "gradient": 0, "texture": 0, "rectangles": 0, "gain": (1, 1), "noise": 0}
    return Style(name="clean", **{**still, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", range(24), ids=NAMES)
def test_less_than_half_of_a_picture_is_pattern(pattern: int) -> None:
    """Otherwise nobody could say which colour lies on which: white on black, averaged over many pictures."""
    white, black = list(COLOURS).index("white"), list(COLOURS).index("black")
    share = render([Scene(pattern, white, black)] * 64, clean(), np.random.default_rng(0)).mean() / 255
    assert 0.15 < share < 0.45


@pytest.mark.parametrize(("direction", "axis"), [("level", 1), ("upright", 0)])
def test_stripes_run_as_they_are_called(direction: str, axis: int) -> None:
    """Along its stripes a picture hardly changes."""
    pattern = NAMES.index(f"broad {direction} stripes")
    straight = clean(rotation=0.0)
    pictures = render([Scene(pattern, 6, 7)] * 8, straight, np.random.default_rng(0)).astype(float).mean(-1)
    assert np.abs(np.diff(pictures, axis=1 + axis)).mean() < 0.01 * np.abs(np.diff(pictures, axis=2 - axis)).mean()


def test_rising_stripes_rise_to_the_right() -> None:
    pictures = {
        way: render(
            [Scene(NAMES.index(f"broad {way} stripes"), 6, 7)] * 8, clean(rotation=0.0), np.random.default_rng(0)
        )
        for way in ("rising", "falling")
    }
    for way, picture in pictures.items():
        grey = picture.astype(float).mean(-1)
        up_right = np.abs(grey[:, 1:, :-1] - grey[:, :-1, 1:]).mean()  # one pixel up and one to the right
        down_right = np.abs(grey[:, :-1, :-1] - grey[:, 1:, 1:]).mean()
        assert (up_right < 0.1 * down_right) if way == "rising" else (down_right < 0.1 * up_right)


# ---- when it cannot be written


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(OSError, match=r"needs about \d+ MB but 1 MB are free") as caught:
        ensure_toyworld(tmp_path, SPEC)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path)
    assert "--runs" in str(caught.value)
    assert not list(tmp_path.rglob(f"{SPEC.folder_name}*"))


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "some/deep/file.jpg")

    monkeypatch.setattr(write, "_write_folders", full)
    with pytest.raises(OSError, match="the disk filled up while the embedded corpus was written"):
        ensure_toyworld(tmp_path, ToyworldSpec(**{**vars(SPEC), "documents": 10}))
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_what_an_interrupted_writer_left_is_not_taken_for_the_corpus(tmp_path: Path) -> None:
    spec = ToyworldSpec(**{**vars(SPEC), "documents": 10, "laion_pairs": 5})
    left = tmp_path / f"{spec.folder_name}.partial" / "mmc4"
    left.mkdir(parents=True)
    (left / "docs_shard_7_v2.jsonl.zip").write_bytes(b"half")
    folder = ensure_toyworld(tmp_path, spec)
    assert len(open_corpus(folder / "mmc4")) == 10
    assert not left.exists()


def test_more_distinct_pictures_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="caption_test asks for 2000 different scenes, but there are only 1176"):
        ensure_toyworld(tmp_path, ToyworldSpec(**{**vars(SPEC), "documents": 2, "caption_test": 2000}))
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
