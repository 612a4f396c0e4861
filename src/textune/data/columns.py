"""JSON objects to Arrow tables: one type per column, widened as the file goes on, never mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from textune.data.json_rows import Record, kind_of
from textune.data.lines import BadRows, batches_of
from textune.errors import DataError
from textune.limits import MAX_DEPTH, require_few_columns

NumberedRows = list[tuple[int, dict[str, Any]]]

HALF_A_PAIR = "half a surrogate pair, such as \\ud83d alone; it is no character"
_NOT_CONVERTED = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)


def merge_types(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Returns the narrowest type that holds both: null gives way to anything, integers to floats, lists and structs
    member by member. None if there is no such type, as for text and numbers."""
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (first, second)]
    if all(numbers):
        if pa.types.is_integer(first) and pa.types.is_integer(second):
            return pa.int64()
        return pa.float64()
    if is_text(first) and is_text(second):
        return pa.large_string()
    if pa.types.is_list(first) and pa.types.is_list(second):
        member = merge_types(first.value_type, second.value_type)
        return None if member is None else pa.list_(member)
    if pa.types.is_struct(first) and pa.types.is_struct(second):
        return _merge_structs(first, second)
    return None


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is text, with offsets of either size."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _merge_structs(first: pa.StructType, second: pa.StructType) -> pa.DataType | None:
    fields = {field.name: field.type for field in first}
    for field in second:
        merged = merge_types(fields.get(field.name, pa.null()), field.type)
        if merged is None:
            return None
        fields[field.name] = merged
    return pa.struct(list(fields.items()))


def typed_tables(records: Iterable[Record], bad: BadRows, *, batch_rows: int) -> Iterator[pa.Table]:
    """Yields tables; each has the columns and types known so far, so a later one may be wider than an earlier one.

    A key that an object lacks is null there.

    Raises:
        DataError: one column holds, say, text and numbers; the message names the first row that differs. Or there are
            too many columns.
    """
    known: dict[str, pa.DataType] = {}
    for batch in batches_of(records, batch_rows, bad):
        rows = _usable(batch, bad)
        if not rows:
            continue
        for _, row in rows:
            for name in row:
                known.setdefault(name, pa.null())
        require_few_columns(bad.path, len(known))
        arrays = [_typed_array(name, rows, known, bad) for name in known]
        yield pa.Table.from_arrays(arrays, names=list(known))


def _typed_array(name: str, rows: NumberedRows, known: dict[str, pa.DataType], bad: BadRows) -> pa.Array:
    values = [row.get(name) for _, row in rows]
    try:
        array = pa.array(values)
        merged = merge_types(known[name], array.type)
        # pyarrow takes true among floats for 1.0.
        if merged is None or (pa.types.is_floating(array.type) and any(isinstance(value, bool) for value in values)):
            raise pa.ArrowInvalid("mixed")
        known[name] = merged
        return array.cast(merged)
    except _NOT_CONVERTED as error:
        raise _mixed_column(name, rows, known[name], bad) from error


def _mixed_column(name: str, rows: NumberedRows, known: pa.DataType, bad: BadRows) -> DataError:
    """The error for the first row whose value does not go with those before it."""
    where = f"{bad.path}: column {name!r}"
    kinds: Counter[str] = Counter()
    for number, row in rows:
        value = row.get(name)
        try:
            merged = merge_types(known, pa.array([value]).type)
        except _NOT_CONVERTED:
            return DataError(f"{where}: {bad.unit} {number}: cannot hold {value!r:.80} (numbers have at most 64 bits).")
        if merged is None:
            before = kinds.most_common(1)[0][0] if kinds else f"values of type {known}"
            return DataError(
                f"{where}: expected one kind of value, found {kind_of(value)} ({value!r:.80}) in {bad.unit} {number} "
                f"after {before}.",
                hint="Write all values of the column alike, for example all as text in quotes.",
            )
        known = merged
        if value is not None:
            kinds[kind_of(value)] += 1
    return DataError(
        f"{where}: integers too large to stand among decimal numbers exactly.",
        hint="Write all values of the column as text in quotes, or leave the column out.",
    )


def _usable(rows: NumberedRows, bad: BadRows) -> NumberedRows:
    """Leaves out the rows that no Arrow table can hold: nested too deeply, or with half of a surrogate pair."""
    kept = []
    for number, row in rows:
        try:
            _check_value(row, depth=0)
        except UnicodeEncodeError:
            bad.add(number, "half a surrogate pair", HALF_A_PAIR)
        except RecursionError:
            bad.add(number, "nested too deeply", f"lists and objects more than {MAX_DEPTH} deep")
        else:
            kept.append((number, row))
    bad.stop()
    return kept


def _check_value(value: Any, *, depth: int) -> None:
    """Raises UnicodeEncodeError for half of a surrogate pair, as in "\\ud83d", and RecursionError for a deep value."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, (dict, list)):
        if depth > MAX_DEPTH:
            raise RecursionError
        if isinstance(value, dict):
            for key in value:
                key.encode()
        for part in value.values() if isinstance(value, dict) else value:
            _check_value(part, depth=depth + 1)
