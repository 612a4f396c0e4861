"""Parquet files as tables of bounded size, however small a file makes equal values and however it nests them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from textune.errors import DataError
from textune.limits import BATCH_BYTES, MAX_DEPTH, MAX_RECORD_BYTES, require_few_columns


def read_parquet(path: Path, *, batch_rows: int) -> Iterator[pa.Table]:
    """Yields tables of up to `batch_rows` rows and about 8 MiB.

    Raises:
        DataError: the file is damaged or of another format, has names twice, too many or too deep columns, or a row of
            more than 8 MiB.
    """
    try:
        metadata = pq.read_metadata(path)
        require_few_columns(path, metadata.num_columns)
        batch_rows = _fitting_rows(metadata, batch_rows, path)
        schema = _plain_schema(pq.read_schema(path), path)
        with pq.ParquetFile(path, read_dictionary=_repeating_columns(metadata)) as file:
            rows = 0
            for batch in file.iter_batches(batch_size=batch_rows):
                for piece in _pieces(batch, path, first_row=rows + 1):
                    table = pa.Table.from_batches([piece]).cast(schema)
                    table.validate(full=True)  # strings that are not UTF-8
                    yield table
                rows += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:  # UnicodeDecodeError is what bad column names give
        raise DataError(
            f"{path}: expected a Parquet file, found a damaged one or another format ({error}).",
            hint="Write or fetch the file again.",
        ) from error


def _repeating_columns(metadata: pq.FileMetaData) -> list[str]:
    """Columns of texts that may be stored once for many rows: they are expanded a piece at a time, not by Arrow."""
    return [
        metadata.schema.column(column).path
        for column in range(metadata.num_columns)
        if metadata.schema.column(column).physical_type == "BYTE_ARRAY"
        and any(
            metadata.row_group(group).column(column).has_dictionary_page for group in range(metadata.num_row_groups)
        )
    ]


def _fitting_rows(metadata: pq.FileMetaData, batch_rows: int, path: Path) -> int:
    """How many rows may be read at once by what the file says of its sizes; a value counts 8 bytes or more."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        sizes = [group.column(column) for column in range(group.num_columns)]
        size = sum(max(column.total_uncompressed_size, 8 * column.num_values) for column in sizes)
        row_bytes = size // max(1, group.num_rows)
        if row_bytes > MAX_RECORD_BYTES:
            raise _large_row(path, f"the rows of its row group {number + 1} have about {row_bytes / 2**20:,.0f} MiB")
        batch_rows = min(batch_rows, max(1, BATCH_BYTES // max(1, row_bytes)))
    return batch_rows


def _pieces(batch: pa.RecordBatch, path: Path, *, first_row: int) -> Iterator[pa.RecordBatch]:
    """Halves a batch until the parts are small when they are expanded."""
    size = sum(map(_expanded_bytes, batch.columns))
    if size <= BATCH_BYTES:
        if batch.num_rows:
            yield batch
        return
    if batch.num_rows == 1:
        raise _large_row(path, f"row {first_row} has {size / 2**20:,.0f} MiB")
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half), path, first_row=first_row)
    yield from _pieces(batch.slice(half), path, first_row=first_row + half)


def _expanded_bytes(array: pa.Array) -> int:
    kind = array.type
    if pa.types.is_dictionary(kind) and array.dictionary.type in (pa.string(), pa.binary()):
        return int(pc.sum(pc.take(pc.binary_length(array.dictionary), array.indices).cast(pa.int64())).as_py() or 0)
    if pa.types.is_list(kind) or pa.types.is_struct(kind):
        parts = array.flatten()
        return sum(map(_expanded_bytes, parts)) if isinstance(parts, list) else _expanded_bytes(parts)
    return int(array.nbytes)


def _large_row(path: Path, found: str) -> DataError:
    return DataError(
        f"{path}: expected rows of at most {MAX_RECORD_BYTES // 2**20} MiB; {found}.",
        hint="Leave out the columns that are neither text nor label, and rows that are no text to classify.",
    )


def _plain_schema(schema: pa.Schema, path: Path) -> pa.Schema:
    """The schema without encodings that `datasets` does not know; the features it wrote into the file stay."""
    repeated = [name for name, times in Counter(schema.names).items() if times > 1]
    if repeated:
        raise DataError(f"{path}: column name {repeated[0]!r} is there twice.")
    fields = []
    for field in schema:
        if _depth(field.type) > MAX_DEPTH:
            raise DataError(f"{path}: column {field.name!r} has lists or structs more than {MAX_DEPTH} deep.")
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        fields.append(pa.field(field.name, pa.string() if pa.types.is_string_view(kind) else kind))
    kept = {key: value for key, value in (schema.metadata or {}).items() if key == b"huggingface"}
    return pa.schema(fields, metadata=kept or None)


def _depth(kind: pa.DataType) -> int:
    return 1 + max((_depth(kind.field(number).type) for number in range(kind.num_fields)), default=0)
