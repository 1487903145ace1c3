"""What a corpus holds and what a run would make of it, before GPU weeks go into it.

    python -m data.audit CORPUS [--shards 20] [--against coco=COCO/images]

Reads every document (or those of some shards, evenly over the corpus) as a run would, decodes the images it would
choose, and prints what was kept, what was not chosen, what is broken and where, duplicates, pictures that an evaluation
set holds too, steps of an epoch and how much of the rows is padding. The same as JSON and as a picture on request.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from data.arguments import threshold
from data.audit.picture import draw
from data.audit.report import printed, report
from data.audit.survey import Pictures, survey
from data.audit.windows import Windows
from data.corpora import Format, find_shards, open_corpus
from data.document import Bad, Corpus
from data.errors import CorpusError
from data.loading.check import spread
from data.loading.select import Rules
from data.tokenizer import Tokenizer

VOCABULARY = 4096  # of the BPE that counts tokens where no tokenizer is given
# Options that say something of some forms of corpora only: what these are called, their forms, the default.
ONLY: Mapping[str, tuple[str, tuple[Format, ...], float]] = {
    "sim_threshold": ("MMC4", ("mmc4",), 0.24),  # in the paper (A.1)
    "max_images": ("documents", ("mmc4", "obelics"), 6),
    "seq_len": ("documents", ("mmc4", "obelics"), 2048),
    "text_len": ("pairs", ("laion",), 80),
}


def _tokenizer(corpus: Corpus, source: str | None) -> Tokenizer:
    if source is not None:
        return Tokenizer.opt(source)
    texts = [text for entry in spread(corpus) if not isinstance(entry, Bad) for text in entry.segments]
    return Tokenizer.train_bpe(texts, VOCABULARY)


def _file(text: str) -> Path:
    if not Path(text).absolute().parent.is_dir() or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no file in a folder that exists")
    return Path(text)


def _set(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER with a folder that exists")
    return name, Path(folder)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _foreign(args: argparse.Namespace, form: Format) -> None:
    """Raises ValueError for an option that says nothing of such a corpus."""
    for name, (called, forms, _) in ONLY.items():
        if name in args and form not in forms:
            raise ValueError(
                f"--{name.replace('_', '-')} is for {called}, and {args.corpus} is a corpus in the form of {form}; "
                "leave it out"
            )


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Says a default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, []) else super()._get_help_string(action)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        "python -m data.audit",
        formatter_class=_Defaults,
        description="Say what a corpus holds and what a run would make of it.",
        epilog="Exit status: 0; 2 for wrong arguments or a folder that is no corpus.",
    )
    top.add_argument("corpus", type=Path, metavar="CORPUS", help="folder of MMC4 shards, of tars or of OBELICS")
    top.add_argument("--shards", type=_positive, help="read only so many shards, evenly over the corpus")
    for name, kind, what in (
        ("sim_threshold", threshold, "of an image to its sentence in MMC4, or none"),
        ("max_images", _positive, "of a document"),
        ("seq_len", _positive, "longest row of a document in tokens"),
        ("text_len", _positive, "longest caption of a pair in tokens"),
    ):
        said = f"{what} (default: {ONLY[name][2]})"
        top.add_argument(f"--{name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS, help=said)
    top.add_argument(
        "--patches", type=_positive, default=196, help="positions of an image: 196 of ViT-B/16 at 224 pixels"
    )
    top.add_argument("--images-per-step", type=_positive, default=8192, help="batch of the run")
    top.add_argument("--tokenizer", help="OPT's, by folder or local name; without it a BPE of the corpus's own text")
    top.add_argument("--against", type=_set, action="append", default=[], metavar="NAME=FOLDER",
                     help="folder of an evaluation set's pictures")  # fmt: skip
    top.add_argument("--cache", type=Path, help="folder that keeps the index of the shards")
    top.add_argument("--json", type=_file, help="write everything there")
    top.add_argument("--picture", type=_file, help="write the counts there as a PNG")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    args = parser().parse_args(arguments)
    try:
        form = find_shards(args.corpus).form
        _foreign(args, form)
        chosen = {name: vars(args).get(name, default) for name, (_, _, default) in ONLY.items()}
        seq_len = args.patches + 4 + chosen["text_len"] if form == "laion" else chosen["seq_len"]
        if args.patches + 4 > seq_len:
            raise ValueError(
                f"an image of --patches {args.patches} with its markers needs {args.patches + 4} tokens, and a row has "
                f"--seq-len {seq_len}; raise the one or lower the other"
            )
        corpus = open_corpus(args.corpus, cache=args.cache, shards=args.shards)
        tokenizer = _tokenizer(corpus, args.tokenizer)
        rules = Rules(
            sim_threshold=chosen["sim_threshold"] if form == "mmc4" else None,
            max_images=chosen["max_images"],
            text_len=chosen["text_len"] if form == "laion" else None,
        )
        found = survey(
            corpus,
            tqdm(range(len(corpus)), unit="document", desc="reading", disable=None),
            rules,
            tokenizer,
            patches=args.patches,
            seq_len=seq_len,
            windows=Windows(args.patches, seq_len, args.images_per_step) if form == "obelics" else None,
            against={name: Pictures(folder) for name, folder in args.against},
        )
    except (CorpusError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    said = report(found, corpus, seq_len, args.images_per_step)
    print(printed(said, args.images_per_step))
    if args.json is not None:
        _write(args.json, (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode())
    if args.picture is not None:
        buffer = io.BytesIO()
        draw(found, f"{args.corpus}: {found.documents:,} documents").save(buffer, "PNG")
        _write(args.picture, buffer.getvalue())
    return 0


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
