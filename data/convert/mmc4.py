"""Documents as MMC4: docs_shard_<k>_v2.jsonl.zip and images/<k>/<name>."""

import json
import zipfile
from pathlib import Path

from data.convert.article import Article
from data.convert.site import Site

_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # equal input must give equal bytes


class Mmc4Shards:
    """Writes the shards of a folder."""

    def __init__(self, folder: Path, site: Site) -> None:
        self._folder, self._site = folder, site
        self._shard = 0
        self._lines: list[str] = []

    def add(self, url: str, article: Article) -> None:
        """Add a document, and its images to the shard."""
        folder = self._folder / "images" / str(self._shard)
        folder.mkdir(parents=True, exist_ok=True)
        for placed in article.images:
            target = folder / placed.found.image_name
            if not target.exists():
                target.write_bytes(self._site.read(placed.found.address))
        self._lines.append(json.dumps(article.record(url), ensure_ascii=False, separators=(",", ":")) + "\n")

    def end(self) -> None:
        """Zip the documents of the shard."""
        name = f"docs_shard_{self._shard}_v2.jsonl"
        info = zipfile.ZipInfo(name, _ZIP_DATE)
        info.external_attr = 0o644 << 16
        with zipfile.ZipFile(self._folder / f"{name}.zip", "w") as archive:
            archive.writestr(info, "".join(self._lines), zipfile.ZIP_DEFLATED)
        self._shard += 1
        self._lines = []
