"""Files made to harm from their first byte: bombs that expand a hundredfold and more, and tables of odd types."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from random import Random
from typing import Any

from faults.fuzz.mutations import COMPRESSORS

MEBIBYTE = 2**20


def delimited(rng: Random, *, delimiter: str = ",") -> bytes:
    """A CSV or TSV file of odd proportions."""
    many = rng.choice((1000, 20_000, 200_000))
    header = f"text{delimiter}label\n"
    bodies: tuple[Callable[[], str], ...] = (
        lambda: header + delimiter * many + "\n",
        lambda: header + '"' * many + "\n",
        lambda: header + '"a\n' * many,
        lambda: header + f'"{"x" * 9 * MEBIBYTE}"{delimiter}a\n',
        lambda: header + "\n" * many,
        lambda: header + f"a{delimiter}b\r" * many,
        lambda: delimiter.join(f"c{number}" for number in range(many)) + "\n" + delimiter * (many - 1) + "\n",
        lambda: delimiter * many + "\n",
        lambda: header + f"{'😀' * 100_000}{delimiter}b\n" * rng.choice((10, 100)),
    )
    return rng.choice(bodies)().encode()


def json_text(rng: Random) -> bytes:
    """JSON lines, or a document, of odd proportions."""
    many = rng.choice((1000, 20_000, 200_000))
    deep = rng.choice((100, 400, 900, 100_000))
    bodies: tuple[Callable[[], str], ...] = (
        lambda: json.dumps({f"c{number}": number for number in range(many)}),
        lambda: "\n".join(json.dumps({f"c{number}": "x"}) for number in range(min(many, 20_000))),
        lambda: '{"text": ' + "[" * deep + "]" * deep + "}\n",
        lambda: '{"text": ' + '{"a": ' * min(deep, 900) + "1" + "}" * min(deep, 900) + "}\n",
        lambda: '{"text": "a", "label": ' + "9" * rng.choice((19, 30, 4000, 5000)) + "}\n",
        lambda: '{"text": "a", "label": [' + ",".join("1" * many) + "]}\n",
        lambda: '{"text": "' + "\\u0000" * many + '", "label": "a"}\n',
        lambda: '{"text": "' + "x" * 9 * MEBIBYTE + '"}\n',
        lambda: "[" + "[]," * many + "[]]",
        lambda: '{"rows": [{"text": "a", "label": "b"}], "more": [' + "1," * many + "1]}",
        lambda: '{"rows": [{"text": "a", "label": ["b", 1, {"c": [null]}]}]}',
        lambda: " " * 10 * MEBIBYTE,
        lambda: '[{"text": "a"}' + " " * 10 * MEBIBYTE + "]",
        lambda: '{"text": "a", "label": 1}\n' * 1000 + '{"text": "a", "label": 1.5}\n{"text": "b", "label": "c"}\n',
    )
    return rng.choice(bodies)().encode()


def compressed(rng: Random, *, suffix: str) -> bytes:
    """A few kilobytes that expand a hundredfold and more, to up to 48 MiB."""
    line = rng.choice((b"a,b\n", b"x" * 1000 + b",b\n", b"\n", b"x", b"\0", '"😀",b\n'.encode(), b'"a\n'))
    # Millions of lines take their time; that is no harm.
    size = rng.choice((1, 2) if b"\n" in line and len(line) < 10 else (4, 16, 48)) * MEBIBYTE
    return COMPRESSORS[suffix][1](b"text,label\n" + line * (size // len(line)))


def yaml_text(rng: Random) -> bytes:
    """YAML that is deep, wide or refers to itself."""
    deep = rng.choice((50, 1000, 100_000))
    bodies: tuple[Callable[[], str], ...] = (
        lambda: "[" * deep,
        lambda: "{" * deep,
        lambda: "- " * deep + "x",
        lambda: "".join(" " * level + "a:\n" for level in range(min(deep, 1000))),
        lambda: "a: &a [x, x]\n" + "\n".join(f"{key}: &{key} [*{key}, *{key}]" for key in "bcdefghij"),
        lambda: "training: {seed: " + "9" * rng.choice((20, 4000, 5000)) + "}",
        lambda: "training: {seed: 0x" + "f" * 5000 + "}",
        lambda: "training: {learning_rate: " + ":".join(["59"] * 1000) + "}",
        lambda: "training:\n" + "".join(f"  key{number}: 1\n" for number in range(min(deep, 20_000))),
        lambda: "data: {source: '" + "x" * deep + "'}",
        lambda: "? " * deep,
        lambda: "!" * deep,
    )
    return rng.choice(bodies)().encode()


def parquet(rng: Random) -> bytes:
    """A Parquet file of odd types, or one that expands far: equal values are stored once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if rng.random() < 0.5:
        text = "x" * rng.choice((1000, 100_000, 2_000_000))
        rows = rng.choice((10, 500, 4096))
        column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
        table = pa.table({"text": column, "label": ["a"] * rows})
    else:
        table = odd_table(rng)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=rng.choice(("snappy", "zstd", "none", "gzip")))
    return sink.getvalue()


def odd_table(rng: Random) -> Any:
    """An Arrow table with columns of types that no text classification needs."""
    import decimal

    import pyarrow as pa

    columns = {
        "decimal": pa.array([decimal.Decimal("1.5"), None]),
        "time": pa.array([1, None], pa.timestamp("ns", "UTC")),
        "duration": pa.array([1, None], pa.duration("s")),
        "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        "struct": pa.array([{"a": {"b": [1]}}, None]),
        "list": pa.array([[["a"], None], None]),
        "fixed": pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
        "binary": pa.array([b"\xff\x00", None]),
        "bytes": pa.array([b"\xff\x00", None], pa.binary(2)),
        "dictionary": pa.array(["a", None]).dictionary_encode(),
        "null": pa.nulls(2),
        "half": pa.array([1.5, float("nan")]).cast(pa.float16()),
        "unsigned": pa.array([2**64 - 1, None], pa.uint64()),
        "large": pa.array(["a", None], pa.large_string()),
        "view": pa.array(["a", None], pa.string_view()),
        "boolean": pa.array([True, None]),
        "date": pa.array([1, None], pa.date32()),
    }
    names = rng.sample(sorted(columns), rng.randint(1, 4))
    shown = [rng.choice((name, "text", "label", "", "a\nb", "text")) for name in names]
    metadata = rng.choice(
        (None, {"huggingface": "{}"}, {"huggingface": "x"}, {"huggingface": '{"info": {"features": {"a": 1}}}'})
    )
    return pa.Table.from_arrays([columns[name] for name in names], names=shown).replace_schema_metadata(metadata)


def safetensors(rng: Random) -> bytes:
    """A safetensors file that is all header."""
    many = rng.choice((1, 1000, 100_000))
    entry = {"dtype": "F32", "shape": [rng.choice((0, 1, 2**31))], "data_offsets": [0, rng.choice((0, 4))]}
    header = rng.choice(
        (
            lambda: json.dumps({f"t{number}": entry for number in range(many)}),
            lambda: "{" + " " * many * 10 + "}",
            lambda: '{"t": ' + "[" * many,
            lambda: '{"t": {}, "t": {}}',
            lambda: "{}",
            lambda: json.dumps({"__metadata__": {str(number): "x" for number in range(many)}}),
        )
    )().encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * rng.choice((0, 4))
