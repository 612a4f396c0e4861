"""Arrow stream files on disk: written table by table, opened memory-mapped, and the fingerprint of what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from textune.data.columns import merge_types
from textune.errors import DataError, InputNotFoundError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_HASHED_ROWS = 4096


def write_tables(tables: Iterable[pa.Table], path: Path) -> pa.Schema:
    """Writes tables to one Arrow stream file, memory flat, and returns its schema.

    Where a later table is wider (integers become floats, a further column), what was written is copied into the wider
    schema once; columns that a table lacks are null there.

    Raises:
        DataError: there is no table, or the tables do not go together, as when the second file of one split has text
            where the first has numbers, or decimal numbers where the first has integers that these cannot hold.
        OSError: writing failed.
    """
    iterator = iter(tables)
    first = next(iterator, None)
    if first is None:
        raise DataError(f"The split {path.stem!r} has no rows.")
    schema = first.schema
    part = path.with_name(f"{path.name}.part")
    writer = _Writer(part, schema)
    try:
        writer.write(first)
        for table in iterator:
            merged = merge_schemas(schema, table.schema, of=f"{path.stem}: a later row")
            if merged != schema:
                writer.close()
                wider = path.with_name(f"{path.name}.wider")
                writer = _Writer(wider, merged)
                with pa.memory_map(str(part)) as source:
                    for batch in pa.ipc.open_stream(source):
                        writer.write(conform(pa.Table.from_batches([batch]), merged, of=path.stem))
                part.unlink()
                # Renaming does not disturb the open file; later tables go on behind the copied ones.
                wider.rename(part)
                schema = merged
            writer.write(conform(table, schema, of=path.stem))
    finally:
        writer.close()
    part.rename(path)
    return schema


class _Writer:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._file, schema)

    def write(self, table: pa.Table) -> None:
        self._stream.write_table(table)

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._file.close()


def merge_schemas(first: pa.Schema, second: pa.Schema, *, of: str) -> pa.Schema:
    """Returns `first` widened so that it also holds the columns of `second`; metadata are those of `first`.

    Raises:
        DataError: a column is, say, text in one and numbers in the other; `of` says whose schema `second` is.
    """
    if first.equals(second):
        return first
    types = {field.name: field.type for field in first}
    for field in second:
        merged = merge_types(types.get(field.name, pa.null()), field.type)
        if merged is None:
            raise DataError(
                f"{of} has {field.type} in column {field.name!r}; expected {types[field.name]} as before.",
                hint="Write the column alike everywhere, for example all labels as text or all as numbers.",
            )
        types[field.name] = merged
    return pa.schema(list(types.items()), metadata=first.metadata)


def conform(table: pa.Table, schema: pa.Schema, *, of: str) -> pa.Table:
    """Returns the table with the columns and types of `schema`; columns it lacks are null.

    Raises:
        DataError: an integer cannot be written exactly in the wider type; `of` says whose table it is.
    """
    if table.schema.equals(schema, check_metadata=True):
        return table
    columns = [
        _widened(table[field.name], field, of=of)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _widened(column: pa.ChunkedArray, field: pa.Field, *, of: str) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{of}: column {field.name!r}: integers too large to stand among the other numbers exactly, as "
            f"{field.type} ({error}).",
            hint="Write all values of the column as text, or leave the column out.",
        ) from error


def rewrite(path: Path, schema: pa.Schema) -> None:
    """Gives an Arrow stream file the types of `schema`."""
    copy = path.with_name(f"{path.name}.copy")
    with pa.memory_map(str(path)) as source:
        batches = pa.ipc.open_stream(source)
        write_tables((conform(pa.Table.from_batches([batch]), schema, of=path.stem) for batch in batches), copy)
    copy.replace(path)


def hash_files(files: Mapping[str, Sequence[Path]], *, options: Mapping[str, Any]) -> str:
    """Returns SHA-256 (hex) over the contents of each split's files and the options they are read with.

    The names and places of the files do not count: equal contents give equal fingerprints.

    Raises:
        InputNotFoundError: a file cannot be read.
    """
    digest = hashlib.sha256(json.dumps(dict(options), sort_keys=True).encode())
    for split, paths in files.items():
        digest.update(f"\n{split}".encode())
        for path in paths:
            try:
                with path.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError as error:
                raise InputNotFoundError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
    return digest.hexdigest()


def hash_splits(splits: DatasetDict) -> str:
    """Returns SHA-256 (hex) over names, column types and rows of the splits, however they are stored on disk."""
    digest = hashlib.sha256()
    for name, dataset in splits.items():
        digest.update(json.dumps([str(name), dataset.features.to_dict()], sort_keys=True, default=str).encode())
        _hash_rows(dataset, digest)
    return digest.hexdigest()


def _hash_rows(dataset: Dataset, digest: Any) -> None:
    schema = pa.schema([pa.field(field.name, field.type) for field in dataset.features.arrow_schema])
    sink = _HashSink(digest)
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as stream:
        for table in dataset.with_format("arrow").iter(batch_size=_HASHED_ROWS):
            # One batch per piece, without metadata and slices: equal rows become equal bytes.
            stream.write_table(table.cast(schema).combine_chunks(), max_chunksize=_HASHED_ROWS)


class _HashSink:
    """A file to write to that keeps only the hash."""

    closed = False

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing to close."""
