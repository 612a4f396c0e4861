"""Files to typed splits: read once, written as Arrow below the cache folder, opened memory-mapped ever after."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from textune.data.arrow_files import hash_files, rewrite, write_tables
from textune.data.cache import cache_root, open_or_make
from textune.data.columns import merge_types
from textune.data.encodings import UTF_8
from textune.data.glue import GlueTask, as_hub_tables, read_official
from textune.data.readers import blank_lines_in_words, existing_file, format_of, read_batches
from textune.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from datasets import DatasetDict

_CONVERSION = 1
"""Counts up when the conversion changes, so that what an older textune cached is not taken for its result."""

_DELIMITED = ("csv", "tsv")
_ENCODED = (*_DELIMITED, "json", "jsonl")
_CONTENTS = "contents.json"

Dropped = Mapping[str, Mapping[str, int]]
"""Rows left out: split -> reason -> count."""
Contents = dict[str, dict[str, Any]]
"""What is known of each split: rows `dropped` by reason, `blank_lines` that were skipped, `bytes` of its file."""


@dataclass(frozen=True)
class Files:
    """Files to convert, before they are read."""

    name: str
    """Short name of the data."""
    location: str
    """What the files are, for messages."""
    splits: Mapping[str, tuple[Path, ...]]
    """The files of each split."""
    official: frozenset[str] = frozenset()
    """Splits in the format of the official GLUE download."""
    task: GlueTask | None = None
    """The GLUE task whose columns the result shall have."""
    unused: tuple[Path, ...] = ()
    """Data files beside them that are named after no split."""
    notes: tuple[str, ...] = ()
    """What the user should be told about the choice of files."""
    label_names: tuple[str, ...] | None = None
    """The order of the labels, where it is fixed."""


@dataclass(frozen=True)
class Converted:
    """What the files held."""

    splits: DatasetDict
    fingerprint: str
    dropped: Dropped
    notes: tuple[str, ...]


def convert(files: Files, *, delimiter: str | None, encoding: str, drop_bad_rows: bool) -> Converted:
    """Reads the files, or opens what an earlier call has made of the same contents.

    Raises:
        ConfigError: a delimiter, and no CSV or TSV file; an encoding, and no text file.
        DataError, InputNotFoundError: the files cannot be read, or their splits do not go together.
        OutputError, StorageError: the cache cannot be written.
    """
    formats = {split: [_format(path, split, files) for path in paths] for split, paths in files.splits.items()}
    kinds = {kind for of_split in formats.values() for kind in of_split}
    if delimiter is not None and not kinds.intersection(_DELIMITED):
        raise ConfigError(f"--delimiter is for .csv and .tsv files; {files.location} has none.")
    if encoding != UTF_8 and not kinds.intersection(_ENCODED):
        raise ConfigError(f"--encoding is for text files; {files.location} has none.")
    options = {
        "conversion": _CONVERSION,
        "formats": formats,
        "task": files.task.name if files.task else None,
        "delimiter": delimiter,
        "encoding": encoding,
        "drop_bad_rows": drop_bad_rows,
    }
    before = _stamps(files)
    fingerprint = hash_files(files.splits, options=options)

    def fill(folder: Path) -> None:
        _write_splits(files, folder, delimiter=delimiter, encoding=encoding, drop_bad_rows=drop_bad_rows)
        if _stamps(files) != before:
            raise DataError(f"{files.location} was changed while it was read.", hint="Start again when it is complete.")

    target = cache_root("data") / fingerprint
    splits, contents = open_or_make(target, fill, _open)
    dropped = {split: about["dropped"] for split, about in contents.items() if about["dropped"]}
    return Converted(splits, fingerprint, dropped, _row_notes(files, splits, contents))


def _format(path: Path, split: str, files: Files) -> str:
    return "glue" if split in files.official else format_of(path)


def _stamps(files: Files) -> list[tuple[int, int]]:
    stats = [existing_file(path).stat() for paths in files.splits.values() for path in paths]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def _write_splits(files: Files, folder: Path, *, delimiter: str | None, encoding: str, drop_bad_rows: bool) -> None:
    schemas: dict[str, pa.Schema] = {}
    contents: Contents = {split: {"dropped": {}, "blank_lines": 0} for split in files.splits}
    for split, about in contents.items():
        tables = _tables(files, split, delimiter=delimiter, encoding=encoding, drop_bad_rows=drop_bad_rows, about=about)
        schemas[split] = write_tables(tables, folder / f"{split}.arrow")
    require_same_columns(schemas)
    for split, schema in _uniform_schemas(schemas).items():
        path = folder / f"{split}.arrow"
        schema = _known_to_datasets(schema, files)
        if not schema.equals(schemas[split], check_metadata=True):
            rewrite(path, schema)
        contents[split]["bytes"] = path.stat().st_size
    (folder / _CONTENTS).write_text(json.dumps(contents), encoding="utf-8")


def _known_to_datasets(schema: pa.Schema, files: Files) -> pa.Schema:
    """The schema, without the features that a Parquet file claims to have where they cannot be.

    Raises:
        DataError: `datasets` has no name for a column's type.
    """
    from datasets import Dataset
    from datasets.table import InMemoryTable

    for candidate in (schema, schema.remove_metadata()):
        try:
            Dataset(InMemoryTable(candidate.empty_table()))
        except Exception as error:  # KeyError, TypeError, ValueError, ...: it trusts what it reads
            problem = error
        else:
            return candidate
    types = ", ".join(f"{field.name}: {field.type}" for field in schema)
    raise DataError(f"{files.location}: a column has a type that cannot be used ({types}): {problem}.") from problem


def _tables(
    files: Files, split: str, *, delimiter: str | None, encoding: str, drop_bad_rows: bool, about: dict[str, Any]
) -> Iterator[pa.Table]:
    """The tables of one split; `about` is complete by the time the last one is read."""
    paths = files.splits[split]
    if split in files.official and files.task is not None:
        tables, counts = read_official(files.task, split, paths, drop_bad_rows=drop_bad_rows)
        yield from tables
        about["dropped"] = counts
        return
    for path in paths:
        kind = format_of(path)
        reader = read_batches(
            path,
            delimiter=delimiter if kind in _DELIMITED else None,
            encoding=encoding if kind in _ENCODED else UTF_8,
            drop_bad_rows=drop_bad_rows,
        )
        tables = iter(reader)
        unknown_labels: dict[str, int] = {}
        if files.task is not None:
            tables, unknown_labels = as_hub_tables(reader, files.task, path=path, drop_bad_rows=drop_bad_rows)
        yield from tables
        about["blank_lines"] += reader.blank_lines
        for reason, count in (*reader.dropped.items(), *unknown_labels.items()):
            about["dropped"][reason] = about["dropped"].get(reason, 0) + count


def require_same_columns(schemas: Mapping[str, pa.Schema]) -> None:
    """Checks the column names of splits; their types may differ, since rows are read by those of their own split.

    Raises:
        DataError: a split lacks columns or has others (a test split may lack one, the label).
    """
    reference = _reference(schemas)
    for split, schema in schemas.items():
        missing = [name for name in schemas[reference].names if name not in schema.names]
        extra = [name for name in schema.names if name not in schemas[reference].names]
        if extra or (missing and not (split.startswith("test") and len(missing) == 1)):
            differences = [f"lacks {', '.join(map(repr, missing))}"] if missing else []
            differences += [f"has {', '.join(map(repr, extra))} besides"] if extra else []
            near = did_you_mean(missing[0], extra) if missing else ""
            raise DataError(
                f"The splits differ in their columns: {split} {' and '.join(differences)}; {reference} has "
                f"{', '.join(schemas[reference].names)}.{near}",
                hint="Give the splits the same columns; only test may lack the label.",
            )


def _uniform_schemas(schemas: Mapping[str, pa.Schema]) -> dict[str, pa.Schema]:
    """Returns the schemas of the splits with the columns in the order of the training split, and with equal types where
    one type holds all. Text and numbers stay what they are: a CSV file, all text, goes with a JSON file that has
    numbers."""
    merged = {field.name: field.type for field in schemas[_reference(schemas)]}
    for schema in schemas.values():
        merged |= {field.name: merge_types(merged[field.name], field.type) or merged[field.name] for field in schema}
    return {
        split: pa.schema(
            [
                (name, kind if merge_types(kind, schema.field(name).type) == kind else schema.field(name).type)
                for name, kind in merged.items()
                if name in schema.names
            ],
            metadata=schema.metadata,
        )
        for split, schema in schemas.items()
    }


def _reference(schemas: Mapping[str, pa.Schema]) -> str:
    return "train" if "train" in schemas else next(iter(schemas))


def _open(folder: Path) -> tuple[DatasetDict, Contents] | None:
    """The converted splits and what was told of them, or None if the cached files are damaged."""
    import datasets

    try:
        contents = {
            split: {name: about[name] for name in ("dropped", "blank_lines", "bytes")}
            for split, about in json.loads((folder / _CONTENTS).read_text(encoding="utf-8")).items()
        }
        paths = {split: folder / f"{split}.arrow" for split in contents}
        if any(path.stat().st_size != contents[split]["bytes"] for split, path in paths.items()):
            return None
        splits = datasets.DatasetDict({split: datasets.Dataset.from_file(str(path)) for split, path in paths.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        return None
    return splits, contents


def _row_notes(files: Files, splits: DatasetDict, contents: Contents) -> tuple[str, ...]:
    notes = []
    for split, about in contents.items():
        if reasons := about["dropped"]:
            listed = ", ".join(f"{count:,} ({reason})" for reason, count in reasons.items())
            notes.append(f"{split}: left out {sum(reasons.values()):,} rows that cannot be read: {listed}.")
        if about["blank_lines"]:
            notes.append(f"{split}: {blank_lines_in_words(about['blank_lines'])}.")
    for split in files.official:
        if files.task is not None and (expected := files.task.num_rows[split]) != len(splits[split]):
            notes.append(f"{split}: {len(splits[split]):,} rows; glue/{files.task.name} on the hub has {expected:,}.")
    return tuple(notes)
