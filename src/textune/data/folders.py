"""Which files of a folder hold which split."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from textune.data.readers import is_data_file, stem_of
from textune.data.splits import SPLIT_NAMES
from textune.errors import DataError, InputNotFoundError

_PART_OF = {name: part for part, names in SPLIT_NAMES.items() for name in names}
_SPLIT_NAME = re.compile(
    rf"(?P<name>(?P<split>{'|'.join(_PART_OF)})(?P<suffix>[_-](?:matched|mismatched))?)"
    r"(?:-(?P<number>\d+)-of-(?P<total>\d+))?",
    re.IGNORECASE,
)
_ORDER = tuple(SPLIT_NAMES)
_MISSING_SHOWN = 5


def canonical_split(name: str) -> str | None:
    """Returns "train", "validation" or "test", with "_matched" or "_mismatched" where the name has it; None for any
    other name."""
    match = _SPLIT_NAME.fullmatch(name)
    return None if match is None else _split_of(match)


def _split_of(match: re.Match[str]) -> str:
    return _PART_OF[match["split"].lower()] + (match["suffix"] or "").lower().replace("-", "_")


def split_files(folder: Path) -> tuple[dict[str, tuple[Path, ...]], tuple[Path, ...]]:
    """Returns the files named after splits (train.csv, dev.jsonl.gz, validation_matched.tsv), train first; and the
    other data files.

    Several files are one split only as numbered parts (train-00000-of-00002.parquet), as the hub has them, and only
    where all of them are there.

    Raises:
        DataError: two files claim the same split, or its parts are not each there once.
        InputNotFoundError: no file is named after a split, or the folder cannot be read.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputNotFoundError(f"Cannot read the folder {str(folder)!r}: {error.strerror or error}.") from error
    data_files = [path for path in entries if path.is_file() and is_data_file(path)]
    found: dict[str, dict[Path, re.Match[str]]] = {}
    others = []
    for path in data_files:
        if match := _SPLIT_NAME.fullmatch(stem_of(path)):
            found.setdefault(_split_of(match), {})[path] = match
        else:
            others.append(path)
    if not found:
        raise _nothing_found(folder, entries, data_files)
    splits = sorted(found, key=lambda name: (_ORDER.index(name.split("_")[0]), name))
    return {split: _whole_split(folder, split, found[split]) for split in splits}, tuple(others)


def _whole_split(folder: Path, split: str, files: dict[Path, re.Match[str]]) -> tuple[Path, ...]:
    """The one file of a split, or all of its parts in the order of their numbers."""
    if any(match["number"] is None for match in files.values()):
        if len(files) > 1:
            raise DataError(
                f"{folder}: expected one file for the split {split!r}, found {', '.join(path.name for path in files)}.",
                hint="Keep one of them, or name the file itself with --data, --validation or --test.",
            )
        return tuple(files)
    sets = sorted({(match["name"].lower(), int(match["total"])) for match in files.values()})
    if len(sets) > 1:
        listed = " and ".join(f"{name}-*-of-{total}" for name, total in sets)
        raise DataError(
            f"{folder}: expected the parts of one set for the split {split!r}, found {listed}.",
            hint="Remove the files that are left over from another set.",
        )
    _, total = sets[0]
    parts: dict[int, Path] = {}
    for path, match in files.items():
        number = int(match["number"])
        if number in parts:
            raise DataError(
                f"{folder}: {split}: part {number} of {total} is there twice: {parts[number].name}, {path.name}.",
                hint="Keep one of them.",
            )
        parts[number] = path
    _require_all_parts(folder, split, parts, files[path], total=total)
    return tuple(parts[number] for number in sorted(parts))


def _require_all_parts(folder: Path, split: str, parts: dict[int, Path], match: re.Match[str], *, total: int) -> None:
    """Checks that parts are numbered from 0, as on the hub, or from 1, without a gap; `match` shows how they are
    spelled."""
    first = 1 if total in parts and 0 not in parts else 0
    numbers = range(first, first + total)
    beyond = [path.name for number, path in sorted(parts.items()) if number not in numbers]
    if beyond:
        found = ", ".join(beyond)
        raise DataError(
            f"{folder}: {split}: expected parts {first} to {numbers.stop - 1} of {total}, found {found} too.",
            hint="Remove what is left over, or rename the parts with the right total.",
        )
    num_missing = total - len(parts)
    if num_missing:
        missing = itertools.islice((number for number in numbers if number not in parts), _MISSING_SHOWN)
        width = len(match["number"])
        listed = ", ".join(f"{match['name']}-{number:0{width}}-of-{match['total']}" for number in missing)
        more = f" and {num_missing - _MISSING_SHOWN:,} more" if num_missing > _MISSING_SHOWN else ""
        raise DataError(
            f"{folder}: {split}: {num_missing:,} of {total:,} parts missing: {listed}{more}.",
            hint="Put all parts there. If those that are there are all, rename them with the right total.",
        )


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
