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
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from data.audit.picture import draw
from data.audit.report import printed, report
from data.audit.survey import Pictures, survey
from data.audit.windows import Windows
from data.corpora import find_shards, open_corpus
from data.document import Bad, Corpus
from data.errors import CorpusError
from data.loading.check import spread
from data.loading.select import Rules
from data.tokenizer import Tokenizer

VOCABULARY = 4096  # of the BPE that counts tokens where no tokenizer is given
SIM_THRESHOLD = 0.24  # of MMC4 in the paper (A.1)


def _tokenizer(corpus: Corpus, source: str | None) -> Tokenizer:
    if source is not None:
        return Tokenizer.opt(source)
    texts = [text for entry in spread(corpus) if not isinstance(entry, Bad) for text in entry.segments]
    return Tokenizer.train_bpe(texts, VOCABULARY)


def _threshold(text: str) -> float | None:
    return None if text == "none" else float(text)


def _set(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER with a folder that exists")
    return name, Path(folder)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


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
    top.add_argument(
        "--sim-threshold", type=_threshold, default=argparse.SUPPRESS,
        help=f"of an image to its sentence in MMC4, or none (default: {SIM_THRESHOLD})",
    )  # fmt: skip
    top.add_argument("--max-images", type=_positive, default=6, help="of a document")
    top.add_argument("--seq-len", type=_positive, default=2048, help="longest row of a document in tokens")
    top.add_argument("--text-len", type=_positive, default=80, help="longest caption of a pair in tokens")
    top.add_argument(
        "--patches", type=_positive, default=196, help="positions of an image: 196 of ViT-B/16 at 224 pixels"
    )
    top.add_argument("--images-per-step", type=_positive, default=8192, help="batch of the run")
    top.add_argument("--tokenizer", help="OPT's, by folder or local name; without it a BPE of the corpus's own text")
    top.add_argument("--against", type=_set, action="append", default=[], metavar="NAME=FOLDER",
                     help="folder of an evaluation set's pictures")  # fmt: skip
    top.add_argument("--cache", type=Path, help="folder that keeps the index of the shards")
    top.add_argument("--json", type=Path, help="write everything there")
    top.add_argument("--picture", type=Path, help="write the counts there as a PNG")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    args = parser().parse_args(arguments)
    try:
        form = find_shards(args.corpus).form
        seq_len = args.patches + 4 + args.text_len if form == "laion" else args.seq_len
        if args.patches + 4 > seq_len:
            raise ValueError(
                f"an image of --patches {args.patches} with its markers needs {args.patches + 4} tokens, and a row has "
                f"--seq-len {seq_len}; raise the one or lower the other"
            )
        if "sim_threshold" in args and form != "mmc4":
            raise ValueError(
                f"--sim-threshold is for MMC4, and {args.corpus} is a corpus in the form of {form}, which has no "
                "similarities; leave it out"
            )
        corpus = open_corpus(args.corpus, cache=args.cache, shards=args.shards)
        tokenizer = _tokenizer(corpus, args.tokenizer)
        rules = Rules(
            sim_threshold=getattr(args, "sim_threshold", SIM_THRESHOLD) if form == "mmc4" else None,
            max_images=args.max_images,
            text_len=args.text_len if form == "laion" else None,
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
