"""Documents as OBELICS: train-<k>.parquet with the published columns, and images/<k>.tar as img2dataset writes them.

A picture in a tar is named by the SHA-1 of its address, and the .json beside it gives the address itself.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from data.convert.article import Article, Placed
from data.convert.site import Site
from data.convert.tars import add_member
from data.obelics import SCHEMA


class ObelicsShards:
    """Writes the shards of a folder."""

    def __init__(self, folder: Path, site: Site) -> None:
        self._folder, self._site = folder, site
        self._shard = 0
        self._rows: list[dict[str, Any]] = []
        self._images: dict[str, Placed] = {}  # of the shard, by address

    def add(self, url: str, article: Article) -> None:
        """Add a document, and its images to the shard."""
        images, texts, about = [], [], []
        for node in article.nodes():
            picture = None if isinstance(node, str) else node
            images.append(picture and picture.found.url)
            texts.append(node if isinstance(node, str) else None)
            about.append(picture and _about(picture, url))
            if picture is not None:
                self._images.setdefault(picture.found.url, picture)
        general = {"url": url, "warc_filename": None, "warc_record_offset": None, "warc_record_length": None}
        self._rows.append(
            {"images": images, "texts": texts, "metadata": _json(about), "general_metadata": _json(general)}
        )

    def end(self) -> None:
        """Write the documents of the shard and their images."""
        parquet.write_table(pa.Table.from_pylist(self._rows, SCHEMA), self._folder / f"train-{self._shard:05d}.parquet")
        (self._folder / "images").mkdir(exist_ok=True)
        with tarfile.open(self._folder / "images" / f"{self._shard:05d}.tar", "w") as archive:
            for url, placed in self._images.items():
                found = placed.found
                key = found.address_sha1
                about = {"url": url, "key": key, "status": "success", "width": found.width, "height": found.height}
                add_member(archive, f"{key}.{found.suffix}", self._site.read(found.address))
                add_member(archive, f"{key}.json", _json(about).encode())
        self._shard += 1
        self._rows, self._images = [], {}


def _about(placed: Placed, url: str) -> dict[str, Any]:
    """The entry of a picture in `metadata`."""
    found, picture = placed.found, placed.picture
    return {
        "document_url": url,
        "unformatted_src": "" if picture.sources[0][:5].lower() == "data:" else picture.sources[0],
        "src": found.url,
        "formatted_filename": found.url.rsplit("/", 1)[-1].rsplit(".", 1)[0],
        "alt_text": picture.alt,
        "original_width": found.width,
        "original_height": found.height,
        "format": found.suffix,
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
