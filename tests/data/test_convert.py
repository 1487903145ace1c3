"""The converter: pages become documents with the text and images that a page shows, and nothing else is read."""

import base64
import gzip
import io
import json
import os
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.convert import sentences as splitter
from data.convert.__main__ import main
from data.convert.encodings import decode
from data.convert.html import Picture, parse
from data.convert.sentences import UNSPACED, spans
from data.corpora import open_corpus
from data.document import RawDocument
from data.images import open_image

FILLER = "Ten plain words of text follow here to make it long enough. "


def picture(colour: str = "red", width: int = 160, height: int = 160, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, form)
    return buffer.getvalue()


def site(tmp_path: Path, files: dict[str, str | bytes]) -> Path:
    root = tmp_path / "site"
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def page(body: str) -> str:
    return f"<html><head><title>T</title></head><body><p>{FILLER}</p>{body}</body></html>"


def documents(out: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(out.glob("docs_shard_*_v2.jsonl.zip"), key=lambda p: int(p.name.split("_")[2])):
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist() == [path.name.removesuffix(".zip")]
            found += [json.loads(line) for line in archive.read(path.name.removesuffix(".zip")).splitlines()]
    return found


def convert(
    tmp_path: Path, files: dict[str, str | bytes], *options: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    out = tmp_path / "out"
    assert main(["html", str(site(tmp_path, files)), str(out), *options]) == 0
    return documents(out), json.loads((out / "manifest.json").read_text())


def texts(html: str) -> list[str]:
    return [block.text for block in parse(html).blocks if block.text]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- parsing


def test_inline_tags_are_transparent_and_blocks_end_a_paragraph():
    html = "<h1>A <em>b</em>&amp;<b>c</b>d</h1>x<div>y  \n z</div>w<ul><li>1<li>2</ul><tr><td>l</td><td>r</td></tr>"
    assert texts(html) == ["A b&cd", "x", "y z", "w", "1", "2", "l r"]


def test_br_and_pre_keep_line_breaks_and_source_line_ends_do_not():
    assert texts("<p>a\nb<br>  c </p><pre>\n  x\n\ty\r\nz\n</pre>") == ["a b\nc", "  x\n\ty\nz"]


@pytest.mark.parametrize(
    "tag", ["script", "style", "noscript", "template", "nav", "header", "footer", "form", "iframe", "svg", "button"]
)
def test_what_is_no_part_of_the_article_is_dropped(tag):
    assert texts(f"<p>a</p><{tag}>gone <b>too</b></{tag}><p>b</p>") == ["a", "b"]


@pytest.mark.parametrize("attribute", ["hidden", 'style="color:red; Display : none"', 'style="visibility:hidden"'])
def test_hidden_elements_are_dropped_with_their_pictures(attribute):
    blocks = parse(f"<p>a</p><div {attribute}>x<p>y<img src=1></div><p {attribute}>z<p>b<img {attribute} src=2>").blocks
    assert [block.parts for block in blocks] == [("a",), ("b",)]


def test_an_unclosed_dropped_element_ends_with_its_parent():
    assert texts("<div><nav>menu</div><p>text") == ["text"]


def test_conditional_comments_hide_nothing_but_themselves():
    html = "<!--[if gt IE 8]><!--><html><!--<![endif]--><p>a<!--[if IE]>b<![endif]--></p><!-- c --><![if !IE]>d"
    assert texts(html) == ["a", "d"]


def test_sources_of_a_picture_in_order_of_preference():
    html = (
        '<picture><source srcset="s.webp"><img src=" a.png " data-src=b.png data-original=c data-lazy-src=d '
        'srcset="e.png 320w, f,g.png 1280w, h.png 640w" alt=" An\n alt " title=T></picture>'
    )
    (block,) = parse(html).blocks
    assert block.parts == (Picture(("a.png", "b.png", "c", "d", "f,g.png"), "An alt", "T"),)


@pytest.mark.parametrize(
    "srcset, largest",
    [
        ("a.png", "a.png"),
        ("a.png, b.png 2x", "b.png"),
        ("a.png 1.5x,b.png 1x", "a.png"),
        ("data:image/png;base64,AA 1x, b 0.5x", "data:image/png;base64,AA"),
        ("a.png 9.9.9x, b.png", "a.png"),
    ],
)
def test_largest_srcset_candidate(srcset, largest):
    (block,) = parse(f'<img srcset="{srcset}">').blocks
    assert block.parts == (Picture((largest,)),)


def test_caption_follows_the_figure_wherever_it_is_written():
    blocks = parse("<p>a</p><figure><figcaption>cap</figcaption><img src=x></figure><p>b</p>").blocks
    assert [block.text for block in blocks] == ["a", "", "cap", "b"]


SNIPPETS = [
    "<",
    ">",
    "</",
    "<!",
    "<![",
    "<!--",
    "-->",
    "<?",
    "&",
    "&#",
    ";",
    '"',
    "'",
    "=",
    "/",
    "<p",
    "<img src=",
    "<pre>",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=4)), max_size=40).map("".join))
@example("<![foo[ x")
@example("<!DOCTYPE [ <!ELEMENT")
@example("<a href='<b>")
@example("&#xD800;&#0;&#99999999999;")
def test_malformed_html_never_raises(html):
    for block in parse(html).blocks:
        block.text.encode()  # and nothing comes out that cannot be written


def test_depth_does_not_matter():
    assert texts("<div>" * 100_000 + "deep")[-1] == "deep"


@pytest.mark.parametrize(
    ("declared", "codec", "text"),
    [
        ("gb2312", "gbk", "门上贴着囍字"),
        ("GBK", "gb18030", "㐀㐁"),
        ("Shift_JIS", "cp932", "①番の髙い木"),
        ("x-sjis", "cp932", "①番"),
        ("euc-kr", "cp949", "똠방각하"),
        ("ks_c_5601-1987", "cp949", "똠방"),
        ("iso-8859-1", "cp1252", "5 € – “so”"),
        ("iso-8859-9", "cp1254", "5 € ğış"),
        ("tis-620", "cp874", "…ก€"),
        ("windows-874", "cp874", "ก"),
        ("big5", "big5hkscs", "嘅啲"),
        ("windows-31j", "cp932", "①"),
        ("x-mac-cyrillic", "mac-cyrillic", "Слово"),
        ("visual", "iso8859-8", "שלום"),
    ],
)
def test_a_declared_name_means_what_browsers_take_it_for(declared, codec, text):
    raw = f"<meta charset={declared}><p>".encode() + text.encode(codec)
    assert decode(raw) == (f"<meta charset={declared}><p>{text}", "declared")


@pytest.mark.parametrize("declaration", ["<meta charset=utf-8>", ""])
def test_a_few_broken_bytes_do_not_change_the_encoding_of_a_page(declaration):
    text = f"{declaration}Größe und Höhe gemäß Fluß, schön grün: "
    assert decode(text.encode() + b"5 \x80") == (text + "5 \ufffd", "repaired")
    mostly_latin = "Größe und Höhe gemäß Fluß, schön grün"
    assert decode(declaration.encode() + mostly_latin.encode("cp1252")) == (declaration + mostly_latin, "cp1252")


def test_a_shift_jis_page_with_one_broken_byte_stays_japanese():
    raw = "<meta charset=Shift_JIS>庭の木は高い。夏の土は乾いて固い。".encode("cp932") + b"\x85</p>"
    text, how = decode(raw)
    assert how == "repaired" and "夏の土は乾いて固い" in text


def test_a_form_that_holds_the_page_is_the_page():
    body = "<p>The old orchard was planted on a slope.</p><img src=a.png><p>In summer the soil is dry.</p>"
    expected = ["The old orchard was planted on a slope.", "In summer the soil is dry."]
    assert (
        texts(f"<form id=aspnetForm action='./x.aspx'><div>{body}<select><option>no</select></div></form>") == expected
    )
    assert texts(f"<h1>Title</h1><form><form>{body}</form><nav>menu</nav></form>") == ["Title", *expected]
    assert texts(f"{body}<form>Search this site: <input> <b>go</b></form>") == expected


@pytest.mark.parametrize(
    "raw, text, how",
    [
        (b"\xef\xbb\xbf<meta charset=latin1>\xc3\xa9", "é", "bom"),
        ("é".encode("utf-16"), "é", "bom"),
        (b'<meta charset="koi8-r">\xc1', "а", "declared"),
        (b'<?xml version="1.0" encoding="iso-8859-2"?>\xb1', "ą", "declared"),
        (b"<meta charset=iso-8859-1>\x93", "“", "declared"),  # as browsers read that name
        (b'<meta charset="utf-16">\xc3\xa9', "é", "utf-8"),  # cannot be true, or the tag could not be read
        (b"<meta charset=utf-8>\x93", "“", "cp1252"),
        (b"<meta charset=hex>e\xcc\x81", "é", "utf-8"),  # no text encoding; and composed
        (b"<meta charset=unicode_escape>\\u0041", "\\u0041", "utf-8"),
        (b"<meta charset=no-such>\xe9\x81", "é�", "cp1252"),
    ],
)
def test_bytes_are_decoded_by_mark_declaration_utf8_cp1252(raw, text, how):
    decoded, found = decode(raw)
    assert (decoded.endswith(text), found) == (True, how)


# ---- sentences


def split(text: str, language: str = "en") -> list[str]:
    return [text[a:b] for a, b in spans(text, language)]


def test_a_page_of_full_stops_takes_no_longer_than_one_of_words():
    assert spans("." * 1_000_000 + "x") == [(0, 1_000_001)]
    assert spans("a" + ")." * 200_000 + "x") == [(0, 400_002)]


def test_several_marks_end_sentences_as_one_did():
    before = re.compile(rf"(?:[.!?…؟۔।]+[{splitter._CLOSERS}]*(?=\s)|[{UNSPACED}]+[{splitter._CLOSERS}]*)")
    stream = random.Random(0)
    for _ in range(3000):
        text = "".join(stream.choices('.!?…。！")» \nab', k=stream.randint(1, 30)))
        assert [m.span() for m in splitter._END.finditer(text)] == [m.span() for m in before.finditer(text)], text


@pytest.mark.parametrize(
    "language, text, sentences",
    [
        (
            "en",
            "Dr. Smith paid $3.50, e.g. for tea. He left! Why?",
            ["Dr. Smith paid $3.50, e.g. for tea.", "He left!", "Why?"],
        ),
        ("en", 'He said "no." Then (perhaps.) J. Doe', ['He said "no."', "Then (perhaps.)", "J. Doe"]),
        ("en", "See Fig. 3 and No. 4. No. It ends...", ["See Fig. 3 and No. 4.", "No.", "It ends..."]),
        ("en", "1. Open it. Figure 4.2. The lid", ["1. Open it.", "Figure 4.2. The lid"]),
        ("en", "one line\nanother line", ["one line", "another line"]),
        ("en", "The file .bashrc etc. is read. “Fine.” ok", ["The file .bashrc etc. is read.", "“Fine.” ok"]),
        ("de", "Am 3. Oktober kam z.B. Herr Maier. Er ging.", ["Am 3. Oktober kam z.B. Herr Maier.", "Er ging."]),
        ("ja", "これは本です。はい！「そう。」と", ["これは本です。", "はい！", "「そう。」", "と"]),
        ("en", " \n ", []),
    ],
)
def test_sentences(language, text, sentences):
    assert split(text, language) == sentences


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='aB3.!?。" \n(', max_size=60))
def test_no_text_is_lost_between_sentences(text):
    assert "".join("".join(split(text)).split()) == "".join(text.split())


# ---- documents


def test_images_stand_between_the_sentences_around_them(tmp_path):
    body = "<p>First one. Second<img src=a.png> goes on. Third.</p><img src=b.png><img src=c.png><p>Last.</p>"
    images = {name: picture(colour) for name, colour in (("a.png", "red"), ("b.png", "lime"), ("c.png", "blue"))}
    (document,), manifest = convert(tmp_path, {"index.html": page(body), **images})
    assert document["url"] == "file:///index.html"
    assert document["text_list"] == [FILLER.strip(), "First one.", "Second goes on.", "Third.", "Last."]
    assert document["dom_order"] == [3, 4, 4]
    # the interrupted sentence; the one before on a tie; the nearer one
    assert [image["matched_text_index"] for image in document["image_info"]] == [2, 3, 4]
    assert [image["raw_url"] for image in document["image_info"]] == [f"file:///{n}.png" for n in "abc"]
    assert all(image["matched_sim"] is None for image in document["image_info"])
    assert document["similarity_matrix"] is None
    assert manifest["counts"] == {
        "documents": 1, "image_tags": 3, "images": 3, "pages": 1, "sentences": 5, "shards": 1, "words": 19
    }  # fmt: skip


def test_alt_and_title_follow_their_image_unless_the_page_says_them_anyway(tmp_path):
    body = (
        '<p>Before.</p><img src=a.png alt="A red square" title="Seen from above"><p>Middle.</p>'
        '<figure><img src=b.png alt="The Green one"><figcaption>Fig. 1: the green one</figcaption></figure>'
        '<img src=c.png alt="c.png" title="c">'
    )
    images = {name: picture(colour) for name, colour in (("a.png", "red"), ("b.png", "lime"), ("c.png", "blue"))}
    (document,), _ = convert(tmp_path, {"index.html": page(body), **images})
    assert document["text_list"][1:] == [
        "Before.",
        "A red square",
        "Seen from above",
        "Middle.",
        "Fig. 1: the green one",
    ]
    assert document["dom_order"] == [2, 5, 6]
    assert document["image_info"][0]["alt_text"] == "A red square"


def test_an_image_is_not_matched_with_the_words_of_another(tmp_path):
    body = (
        '<p>Start.</p><img src=a.png alt="Alt of a"><img src=b.png>'
        "<figure><img src=c.png><figcaption>About c.</figcaption></figure>"
        "<figure><img src=d.png><figcaption>About d.</figcaption></figure>"
    )
    colours = zip("abcd", ("red", "lime", "blue", "black"), strict=True)
    (document,), _ = convert(tmp_path, {"i.html": page(body), **{f"{n}.png": picture(c) for n, c in colours}})
    matched = [document["text_list"][image["matched_text_index"]] for image in document["image_info"]]
    assert matched == ["Start.", "Start.", "About c.", "About d."]


def test_pre_is_kept_whole_up_to_blank_lines(tmp_path):
    (document,), _ = convert(tmp_path, {"i.html": page("<pre>a. B\nc\n\nd</pre><img src=a.png>"), "a.png": picture()})
    assert document["text_list"][1:] == ["a. B\nc", "d"]


@pytest.mark.parametrize(
    "name, head, source",
    [
        ("a/b/page.html", "", "../pic/x y.png"),
        ("a/b/page.html", "", "../pic/x%20y.png?v=1#top"),
        ("a/b/page.html", "", "/a/pic/x y.png"),
        ("page.html", '<base href="a/">', "pic/x y.png"),
        ("page.html", '<base href="/a/pic/ignored.html">', "x y.png"),
        ("a/page.htm", "", "./pic//../pic/x y.png"),
    ],
)
def test_addresses_are_joined_as_in_a_browser(tmp_path, name, head, source):
    files = {name: f"{head}<p>{FILLER}</p><img src='{source}'>", "a/pic/x y.png": picture()}
    (document,), _ = convert(tmp_path, files)
    assert document["url"] == f"file:///{name}"
    (image,) = document["image_info"]
    assert image["raw_url"].startswith("file:///a/pic/x")
    assert (tmp_path / "out/images/0" / image["image_name"]).read_bytes() == picture()


def test_data_uri_is_decoded_and_a_lazy_placeholder_passed_over(tmp_path):
    dot = "data:image/png;base64," + base64.b64encode(picture(width=1, height=1)).decode()
    inline = "data:image/png;base64," + base64.b64encode(picture("blue")).decode()
    body = f'<img src="{dot}" data-src="real.png"><img src="{inline}">'
    (document,), manifest = convert(tmp_path, {"i.html": page(body), "real.png": picture()})
    real, data = document["image_info"]
    assert real["raw_url"] == "file:///real.png"
    assert data["raw_url"].startswith("data:image/png;sha256,") and len(data["raw_url"]) < 100
    assert (tmp_path / "out/images/0" / data["image_name"]).read_bytes() == picture("blue")
    assert manifest["skipped"]["images"] == {}


def test_every_image_left_out_is_counted_by_its_reason(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture("navy"))
    root = site(
        tmp_path,
        {
            "good.png": picture(),
            "again.png": picture(),
            "small.png": picture(width=149),
            "wide.png": picture(width=321),
            "edge.png": picture("teal", width=320),
            "vector.svg": '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
            "anim.gif": picture(form="GIF"),
            "lie.jpg": "<html>404</html>",
            "cut.png": picture("gold", 400, 400)[:-300],
        },
    )
    (root / "link.png").symlink_to(secret)
    (root / "inner.png").symlink_to(root / "edge.png")
    sources = [*sorted(p.name for p in root.iterdir()), "gone.png", "https://example.invalid/x.png", "../secret.png"]
    sources += [secret.as_uri(), "http://[bad/x.png", "x%00.png", "data:image/png;base64,!!", "good.png"]
    tags = "".join(f'<img src="{source}">' for source in sources) + "<img alt=none>"
    (root / "i.html").write_text(page(tags))
    assert main(["html", str(root), str(tmp_path / "out")]) == 0
    (document,) = documents(tmp_path / "out")
    assert [image["raw_url"] for image in document["image_info"]] == ["file:///again.png", "file:///edge.png"]
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["skipped"]["images"] == {
        "aspect": 1,  # wide
        "bad_address": 3,
        "duplicate": 3,  # good twice, inner
        "format": 2,
        "missing": 1,
        "no_address": 1,
        "outside_site": 3,  # link, ../, file://
        "remote": 1,
        "too_small": 1,
        "undecodable": 2,
    }
    assert manifest["counts"]["image_tags"] == len(sources) + 1
    written = [p.read_bytes() for p in (tmp_path / "out/images").rglob("*") if p.is_file()]
    assert secret.read_bytes() not in written


def test_filters_can_be_changed(tmp_path):
    files = {"i.html": "<p>Hi<img src=a.gif><img src=b.gif>", "a.gif": picture(width=20, height=5, form="GIF")}
    files["b.gif"] = files["a.gif"]
    options = ["--formats", "gif,jpeg", "--min-side", "5", "--max-aspect", "4", "--min-words", "1", "--keep-duplicates"]
    (document,), manifest = convert(tmp_path, files, *options)
    assert [Path(image["image_name"]).suffix for image in document["image_info"]] == [".gif", ".gif"]
    assert manifest["filters"]["formats"] == ["gif", "jpg"]


def test_pages_left_out_are_counted(tmp_path):
    outside = tmp_path / "outside.html"
    outside.write_text(page("<img src=a.png>"))
    files: dict[str, str | bytes] = {
        "a.png": picture(),
        "bomb.html.gz": gzip.compress(bytes(20 * 2**20)),
        "broken.html.gz": b"no gzip",
        "cut.html.gz": gzip.compress(random.Random(0).randbytes(999))[:-40],
        "none.html": page(""),
        "packed.html.gz": gzip.compress(page("<img src=a.png>").encode()),
        "short.xhtml": "<p>Few words<img src=a.png>",
        "cp1252.HTM": page("<img src=a.png>caf\u00e9").encode("cp1252"),
    }
    root = site(tmp_path, files)
    (root / "linked.html").symlink_to(root / "none.html")
    (root / "out.html").symlink_to(outside)
    assert main(["html", str(root), str(tmp_path / "out")]) == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [document["url"] for document in documents(tmp_path / "out")] == [
        "file:///cp1252.HTM",
        "file:///packed.html.gz",
    ]
    assert "café" in documents(tmp_path / "out")[0]["text_list"]
    assert manifest["skipped"]["pages"] == {
        "no_image": 1, "outside_site": 1, "same_file": 1, "too_large": 1, "too_short": 1, "unreadable": 2
    }  # fmt: skip
    assert manifest["decoded_as"] == {"cp1252": 1, "utf-8": 3}
    assert manifest["counts"]["pages"] == 9


def test_web_addresses_are_read_through_the_table_only(tmp_path):
    table = tmp_path / "urls.tsv"
    table.write_text("https://example.invalid/p.png\tpics/a.png\nhttps://example.invalid/q.png\t../secret.png\n")
    (tmp_path / "secret.png").write_bytes(picture("navy"))
    body = '<base href="https://example.invalid/"><img src="p.png#x"><img src="q.png">'
    files = {"i.html": page(body), "pics/a.png": picture()}
    (document,), manifest = convert(tmp_path, files, "--urls", str(table))
    assert [image["raw_url"] for image in document["image_info"]] == ["https://example.invalid/p.png#x"]
    assert manifest["skipped"]["images"] == {"outside_site": 1}


# ---- files


def many(count: int = 5) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {
        f"p{k}.html": page(f"<p>Page {k}.</p><img src=i{k % 3}.png>") for k in range(count)
    }
    return files | {f"i{k}.png": picture(colour) for k, colour in enumerate(("red", "lime", "blue"))}


def test_shards_hold_the_number_asked_for_and_each_its_images(tmp_path):
    found, manifest = convert(tmp_path, many(), "--docs-per-shard", "2")
    assert [document["url"] for document in found] == [f"file:///p{k}.html" for k in range(5)]
    assert manifest["counts"]["shards"] == 3
    for k, document in enumerate(found):
        for image in document["image_info"]:
            path = tmp_path / "out/images" / str(k // 2) / image["image_name"]
            assert open_image(path.read_bytes()).size == (image["width"], image["height"])


def test_output_does_not_depend_on_the_order_of_the_file_system_or_on_the_place(tmp_path, monkeypatch):
    convert(tmp_path, many(), "--docs-per-shard", "2")
    real = os.walk

    def backwards(*args: Any, **kwargs: Any) -> Any:
        return ((folder, folders[::-1], files[::-1]) for folder, folders, files in real(*args, **kwargs))

    monkeypatch.setattr(os, "walk", backwards)
    (tmp_path / "elsewhere").mkdir()
    convert(tmp_path / "elsewhere", many(), "--docs-per-shard", "2")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "elsewhere" / "out")


def test_out_that_is_not_empty_is_left_alone(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert main(["html", str(site(tmp_path, many())), str(out)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert snapshot(tmp_path / "out") == {"mine.txt": b"keep"}


def test_an_interrupted_run_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch, capsys):
    root, out = site(tmp_path, many()), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(
            "data.convert.conversion._Writer.end_shard", lambda self: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert main(["html", str(root), str(out)]) == 130
    assert sorted(p.name for p in tmp_path.iterdir()) == ["site"]
    out.mkdir()  # empty is fine
    assert main(["html", str(root), str(out)]) == 0
    assert "documents" in capsys.readouterr().out


@pytest.mark.parametrize(
    "files, status, message",
    [
        (None, 2, "is not a folder"),
        ({"notes.txt": "x"}, 2, "holds no .html"),
        ({"i.html": page("")}, 3, "No page shows an image"),
        ({"i.html": page("<img src=a.svg>"), "a.svg": "<svg/>"}, 3, "left out as format"),
    ],
)
def test_failures_say_what_is_wrong_in_one_line(tmp_path, capsys, files, status, message):
    root = tmp_path / "site" if files is None else site(tmp_path, files)
    assert main(["html", str(root), str(tmp_path / "out")]) == status
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    "option", [["--formats", "svg"], ["--min-side", "0"], ["--language", "xx"], ["--max-aspect", "nan"]]
)
def test_options_that_make_no_sense_are_refused(tmp_path, option, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["html", str(tmp_path), str(tmp_path / "out"), *option])
    assert stop.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_summary_shows_what_was_kept_and_why_the_rest_was_not(tmp_path, capsys):
    convert(tmp_path, {"i.html": page("<img src=a.png><img src=b.png>"), "a.png": picture()})
    out = capsys.readouterr().out
    assert "images kept" in out and "image skipped: missing" in out and "data.sim_threshold=none" in out


def test_the_obelics_reader_gives_back_what_was_written(tmp_path, capsys):
    body = "<p>First one. Second one.</p><img src=a.png alt='A red square'><p>Third 一。二。</p><img src='b c.png'>"
    files = {"p.html": page(body), "q.html": page("<img src=a.png>"), "a.png": picture(), "b c.png": picture("blue")}
    folder, out = site(tmp_path, files), tmp_path / "out"
    assert main(["html", str(folder), str(out), "--to", "obelics", "--docs-per-shard", "1"]) == 0
    assert "read it with --set data.obelics" in capsys.readouterr().out
    assert json.loads((out / "manifest.json").read_text())["format"] == "obelics"
    corpus = open_corpus(out)
    first, second = corpus[0], corpus[1]
    assert isinstance(first, RawDocument) and isinstance(second, RawDocument)
    assert first.segments == (FILLER.strip(), "First one. Second one.", "A red square", "Third 一。二。")
    assert first.order == (0, 1, -1, 2, 3, -2) and first.meta["url"] == "file:///p.html"
    assert [ref.name for ref in first.images] == ["file:///a.png", "file:///b c.png"]
    assert [ref.read() for ref in (*first.images, *second.images)] == [files["a.png"], files["b c.png"], files["a.png"]]
    again = tmp_path / "again"
    assert main(["html", str(folder), str(again), "--to", "obelics", "--docs-per-shard", "1"]) == 0
    assert snapshot(out) == snapshot(again)


def test_the_mmc4_reader_gives_back_what_was_written(tmp_path):
    found, _ = convert(tmp_path, many(), "--docs-per-shard", "2")
    corpus = open_corpus(tmp_path / "out")
    assert len(corpus) == len(found)
    for k, document in enumerate(found):
        raw = corpus[k]
        assert isinstance(raw, RawDocument)
        assert list(raw.segments) == document["text_list"]
        assert [ref.name for ref in raw.images] == [image["image_name"] for image in document["image_info"]]
        assert list(raw.anchors) == [image["matched_text_index"] for image in document["image_info"]]
        assert raw.scores == (None,) * len(raw.images)
        assert list(raw.meta["dom_order"]) == document["dom_order"]
        assert [open_image(ref).size for ref in raw.images] == [(160, 160)] * len(raw.images)
