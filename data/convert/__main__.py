"""Turn a folder of web pages into a corpus this suite can train on, and documents into pairs.

    python -m data.convert html SITE OUT [--to obelics]
    python -m data.convert pairs CORPUS OUT [--matching optimal]

SITE is any folder with .html files and the pictures they show, for instance the documentation of a program. As MMC4,
OUT gets docs_shard_<k>_v2.jsonl.zip, images/<k>/<name> and manifest.json; without similarity scores an image is matched
with the sentence nearest to it on the page, so read the result with `--set data.sim_threshold=none`. As OBELICS, OUT
gets train-<k>.parquet, images/<k>.tar and manifest.json, and images stand where the page shows them.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from data.arguments import threshold
from data.convert.conversion import SHARDS, Format, NothingKept, Settings, convert, summary
from data.convert.pairs import export
from data.convert.sentences import LANGUAGES
from data.convert.site import FORMATS, PictureRules, Site
from data.corpora import open_corpus
from data.document import Corpus
from data.errors import CorpusError
from data.loading.select import Rules
from data.readers.mmc4 import Mmc4Corpus
from data.readers.mmc4_tars import Mmc4TarCorpus
from data.readers.rematch import Rematched

Matching = Callable[[Mmc4Corpus | Mmc4TarCorpus, float | None], Corpus]  # of a corpus under a threshold
MATCHINGS: Mapping[Literal["published", "optimal"], Matching] = {
    "published": lambda corpus, _: corpus,
    "optimal": Rematched,
}
_READ_WITH: dict[Format, str] = {
    "mmc4": "it has no similarity scores, so read it with --set data.sim_threshold=none",
    "obelics": "read it with --set data.obelics",
}


def _url_table(path: Path) -> dict[str, str]:
    table: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise CorpusError(f"--urls {path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            url, tab, name = line.partition("\t")
            if not tab or not url.strip() or not name.strip():
                raise CorpusError(f"--urls {path}, line {number}: expected an address, a tab and a path below SITE")
            table[url.strip()] = name.strip()
    return table


def _formats(text: str) -> frozenset[str]:
    names = frozenset(name.strip().lower().replace("jpeg", "jpg") for name in text.split(","))
    if not names <= set(FORMATS):
        unknown = ", ".join(sorted(names - set(FORMATS))) or "nothing"
        raise argparse.ArgumentTypeError(f"unknown format {unknown!r}; choose from {', '.join(FORMATS)}")
    return names


def _at_least(low: float, kind: type[int] | type[float]) -> Any:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not value >= low:
            raise argparse.ArgumentTypeError(f"{value} is below {low}")
        return value

    return read


def parser() -> argparse.ArgumentParser:
    """The command line."""
    usual = argparse.ArgumentDefaultsHelpFormatter
    top = argparse.ArgumentParser("python -m data.convert", description="Make a training corpus out of other data.")
    sources = top.add_subparsers(dest="source", required=True, metavar="SOURCE")
    _add_pairs(sources)
    html = sources.add_parser(
        "html",
        formatter_class=usual,
        help="a folder of web pages with their pictures",
        description="Convert the .html pages of SITE and the pictures they show into a corpus in OUT. Only files "
        "inside SITE are read, nothing is downloaded, and SITE is not changed.",
        epilog="example: python -m data.convert html /usr/share/doc/debian-handbook/html/en-US corpora/handbook. "
        "Exit status: 0 converted; 2 wrong arguments, no SITE, no pages in it, or OUT not empty; 3 no image was kept.",
    )
    html.add_argument(
        "site", type=Path, metavar="SITE", help="folder with .html, .htm, .xhtml files, or these with .gz"
    )
    html.add_argument("out", type=Path, metavar="OUT", help="folder to create")
    html.add_argument("--to", choices=tuple(SHARDS), default="mmc4", help="format of the corpus")
    html.add_argument("--formats", type=_formats, default="jpg,png,webp", help=f"kept: any of {', '.join(FORMATS)}")
    html.add_argument("--min-side", type=_at_least(1, int), default=150, help="shortest side of an image in pixels")
    html.add_argument(
        "--max-aspect", type=_at_least(1, float), default=2.0, help="longer over shorter side of an image"
    )
    html.add_argument("--keep-duplicates", action="store_true", help="keep an image that a page shows again")
    html.add_argument("--min-words", type=_at_least(0, int), default=10, help="fewest words of a document")
    html.add_argument("--docs-per-shard", type=_at_least(1, int), default=1000, help="documents in one file of OUT")
    html.add_argument("--language", choices=tuple(LANGUAGES), default="en", help="rules for splitting sentences")
    html.add_argument("--urls", type=Path, help="table of web addresses and files: address, tab, path below SITE")
    return top


def _add_pairs(sources: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    pairs = sources.add_parser(
        "pairs",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        help="the images of MMC4 documents with their sentences",
        description="Write MMC4-Pair as tars of image-text pairs: each image of the MMC4 documents in CORPUS that a "
        "run would choose, with its sentence. CORPUS is not changed.",
        epilog="example: python -m data.convert pairs corpora/mmc4 corpora/mmc4-pair --matching optimal. "
        "Exit status: 0 written; 2 wrong arguments, no MMC4 in CORPUS, OUT not empty, or no pair left.",
    )
    pairs.add_argument("corpus", type=Path, metavar="CORPUS", help="folder of MMC4 documents")
    pairs.add_argument("out", type=Path, metavar="OUT", help="folder to create")
    pairs.add_argument(
        "--matching",
        choices=tuple(MATCHINGS),
        default="published",
        help="optimal: matched again by the similarities given, for the images that are there",
    )
    pairs.add_argument("--sim-threshold", type=threshold, default=0.24, help="of an image to its sentence, or none")
    pairs.add_argument("--max-images", type=_at_least(1, int), default=6, help="of a document")


def _export(args: argparse.Namespace) -> int:
    try:
        opened = open_corpus(args.corpus)
        if not isinstance(opened, Mmc4Corpus | Mmc4TarCorpus):
            raise CorpusError(f"{args.corpus} holds no MMC4 documents but {opened.name}, which needs no pairs made")
        rules = Rules(sim_threshold=args.sim_threshold, max_images=args.max_images)
        counts = export(MATCHINGS[args.matching](opened, args.sim_threshold), args.out, rules)
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    left_out = ", ".join(f"{cause} {count}" for cause, count in sorted(counts.items()) if cause != "pairs")
    print(f"{counts['pairs']:,} pairs written to {args.out}; left out: {left_out or 'nothing'}")
    print(f"read them with --set data.mmc4_pair={args.out}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    args = parser().parse_args(arguments)
    if args.source == "pairs":
        return _export(args)
    settings = Settings(
        args.to,
        PictureRules(args.formats, args.min_side, args.max_aspect),
        keep_duplicates=args.keep_duplicates,
        min_words=args.min_words,
        docs_per_shard=args.docs_per_shard,
        language=args.language,
    )
    try:
        tally = convert(Site(args.site, _url_table(args.urls) if args.urls else None), args.out, settings)
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, NothingKept) else 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    print(summary(tally))
    print(f"written to {args.out}; {_READ_WITH[args.to]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
