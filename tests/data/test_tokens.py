from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textune.data.tokens import TokenRows

ROWS = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=12)


def table_of(rows: list[list[int]], *, types: bool = False) -> pa.Table:
    columns = {"input_ids": pa.array(rows, pa.list_(pa.int32()))}
    if types:
        columns["token_type_ids"] = pa.array([[1] * len(row) for row in rows], pa.list_(pa.int8()))
    columns["full_length"] = pa.array([len(row) + 2 for row in rows], pa.int32())
    return pa.table(columns)


@given(chunks=st.lists(ROWS, min_size=1, max_size=4), data=st.data())
def test_any_rows_come_back_in_the_order_asked_for(chunks: list[list[list[int]]], data: st.DataObject) -> None:
    rows = [row for chunk in chunks for row in chunk]
    tokens = TokenRows(pa.concat_tables(table_of(chunk, types=True) for chunk in chunks))
    assert len(tokens) == len(rows)
    assert tokens.lengths.tolist() == [len(row) for row in rows]
    assert tokens.full_lengths.tolist() == [len(row) + 2 for row in rows]
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)) if rows else []
    examples = tokens.take(np.array(wanted, dtype=np.int64))
    assert len(examples) == len(wanted)
    assert [ids.tolist() for ids in examples.input_ids] == [rows[row] for row in wanted]
    assert examples.token_type_ids is not None
    assert [ids.tolist() for ids in examples.token_type_ids] == [[1] * len(rows[row]) for row in wanted]


def test_a_slice_of_a_table_keeps_its_rows() -> None:
    tokens = TokenRows(table_of([[1], [2, 3], [], [4, 5, 6]]).slice(1, 3))
    assert [ids.tolist() for ids in tokens.take([0, 1, 2]).input_ids] == [[2, 3], [], [4, 5, 6]]
    assert tokens.count_in_rows([3, 6, 4]).tolist() == [1, 0, 2]
    assert tokens.id_counts.tolist() == [0, 0, 1, 1, 1, 1, 1]


def test_there_are_no_type_ids_where_the_tokenizer_has_none() -> None:
    assert TokenRows(table_of([[1]])).take([0]).token_type_ids is None


def test_rows_are_views_of_the_file_and_not_copies(tmp_path: Path) -> None:
    table = table_of([[7, 8], [9]], types=True)
    with pa.OSFile(str(tmp_path / "tokens.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.slice(0, 1))
        writer.write_table(table.slice(1, 1))
    before = pa.total_allocated_bytes()
    tokens = TokenRows.open(tmp_path / "tokens.arrow")
    examples = tokens.take([1, 0])
    assert [ids.tolist() for ids in examples.input_ids] == [[9], [7, 8]]
    assert examples.input_ids[0].dtype == np.int32
    assert not examples.input_ids[0].flags.owndata
    assert not examples.input_ids[0].flags.writeable
    assert pa.total_allocated_bytes() == before


def test_a_row_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IndexError):
        TokenRows(table_of([[1], [2]])).take([2])
