"""Which files of a folder hold which split."""

from __future__ import annotations

import re
from pathlib import Path

from textune.data.readers import is_data_file, stem_of
from textune.errors import DataError, InputNotFoundError

SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
"""Names of files (and of the hub's splits), and the split they stand for."""

_SPLIT_NAME = re.compile(
    rf"(?P<split>{'|'.join(SPLIT_ALIASES)})(?P<suffix>[_-](?:matched|mismatched))?(?P<shard>-\d+-of-\d+)?",
    re.IGNORECASE,
)
_ORDER = ("train", "validation", "test")


def canonical_split(name: str) -> str | None:
    """Returns "train", "validation" or "test", with "_matched" or "_mismatched" where the name has it; None for any
    other name."""
    match = _SPLIT_NAME.fullmatch(name)
    if match is None:
        return None
    return SPLIT_ALIASES[match["split"].lower()] + (match["suffix"] or "").lower().replace("-", "_")


def split_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Returns the files named after splits (train.csv, dev.jsonl.gz, validation_matched.tsv), train first.

    Several files are one split only as numbered parts (train-00000-of-00002.parquet), as the hub has them.

    Raises:
        DataError: two files claim the same split.
        InputNotFoundError: no file is named after a split, or the folder cannot be read.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputNotFoundError(f"Cannot read the folder {str(folder)!r}: {error.strerror or error}.") from error
    data_files = [path for path in entries if path.is_file() and is_data_file(path)]
    found: dict[str, list[Path]] = {}
    for path in data_files:
        if split := canonical_split(stem_of(path)):
            found.setdefault(split, []).append(path)
    for split, paths in found.items():
        if len(paths) > 1 and not all(re.search(r"-\d+-of-\d+$", stem_of(path)) for path in paths):
            names = ", ".join(path.name for path in paths)
            raise DataError(
                f"{folder}: expected one file for the split {split!r}, found {names}.",
                hint="Keep one of them, or name the file itself with --data, --validation or --test.",
            )
    if not found:
        raise _nothing_found(folder, entries, data_files)
    return {
        split: tuple(found[split]) for split in sorted(found, key=lambda name: (_ORDER.index(name.split("_")[0]), name))
    }


def _nothing_found(folder: Path, entries: list[Path], data_files: list[Path]) -> InputNotFoundError:
    hint = None
    folders = [path for path in entries if path.is_dir()]
    if data_files:
        hint = f"For one file, name it: --data {data_files[0]}"
    elif folders:
        hint = f"It holds folders; name one of them: --data {folders[0]}"
    listed = ", ".join(path.name for path in entries[:10]) or "nothing"
    more = f" and {len(entries) - 10} more" if len(entries) > 10 else ""
    return InputNotFoundError(
        f"The folder {str(folder)!r} has no train, validation (dev) or test file that can be read; it holds {listed}"
        f"{more}.",
        hint=hint,
    )
