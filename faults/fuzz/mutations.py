"""Valid files made wrong: bytes changed anywhere, and JSON, YAML and safetensors changed where their structure is."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePath
from random import Random
from typing import Any

import yaml

Files = dict[str, bytes]
"""The contents of a folder: path below it -> bytes."""

COMPRESSORS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    ".gz": (gzip.decompress, lambda data: gzip.compress(data, mtime=0)),
    ".bz2": (bz2.decompress, bz2.compress),
    ".xz": (lzma.decompress, lzma.compress),
}

_NUMBERS = ("0", "-1", "255", "65536", "2147483648", "-9223372036854775809", "1e999", "-0.0", "NaN", "Infinity")
_FRAGMENTS = (
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xed\xa0\x80",  # half a surrogate pair
    b"\xc3",
    b"\r",
    b"\r\n",
    b"\n\n",
    b'"',
    b'""',
    b",",
    b"\t",
    b"'",
    b"[",
    b"]",
    b"{",
    b"}",
    b":",
    b"\\u0000",
    b"\\ud83d",
    b"\x1b[2J",
    "\u2028".encode(),
    "\u202e".encode(),
    "😀".encode(),
    b"=cmd()",
    b"null",
    b"true",
    b"-",
    b"#",
    b"9" * 5000,
    b"A" * 70_000,
    b"[" * 500 + b"]" * 500,
    b"[" * 100_000,
    b'{"a":' * 2000,
    *(number.encode() for number in _NUMBERS),
)
_YAML_FRAGMENTS = (
    "*x",
    "&x 1",
    "<<: [1, 2]",
    "? [a, b]",
    "!!int ''",
    "!!float x",
    "!!bool x",
    "!!timestamp x",
    "!!binary x",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!map x",
    "!!python/object/apply:os.system [id]",
    "2001-99-99",
    "0x",
    "1:60:99",
    "=",
    "~",
    "|\n  x",
    "%TAG ! x",
    "--- 1\n--- 2",
)
_INTEGERS = (0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**47, 2**63 - 1, 2**64 - 1, 100_000_001)
_RAW = "@@RAW@@"
_RAW_KEY = "@@KEY@@"


def mutate(files: Files, rng: Random, *, altered: Callable[[str], bool]) -> Files:
    """Returns the files with one, rarely two, of those that `altered` allows changed, cut, removed or swapped."""
    changed = dict(files)
    names = sorted(filter(altered, files))
    for _ in range(1 if rng.random() < 0.9 else 2):
        name = rng.choice(names)
        chance = rng.random()
        if chance < 0.01:
            changed.pop(name, None)
        elif chance < 0.02:
            changed[name] = b""
        elif chance < 0.03:
            changed[name] = files[rng.choice(sorted(files))]
        else:
            changed[name] = mutate_file(name, changed.get(name, b""), rng)
    return changed


def mutate_file(name: str, data: bytes, rng: Random) -> bytes:
    """Changes one file, by the structure that its name promises or byte by byte."""
    suffix = PurePath(name).suffix
    if suffix in COMPRESSORS and rng.random() < 0.6:
        expand, compress = COMPRESSORS[suffix]
        with contextlib.suppress(OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):  # it is compressed no more
            return compress(mutate_file(PurePath(name).stem, expand(data), rng))
    by_structure = {
        ".json": mutate_json,
        ".jsonl": _mutate_json_line,
        ".yaml": mutate_yaml,
        ".safetensors": mutate_safetensors,
    }.get(suffix)
    if by_structure is not None and rng.random() < 0.65:
        with contextlib.suppress(Exception):  # it is no longer what its name promises, and parsers fail in many ways
            return by_structure(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = mutate_bytes(data, rng)
    return data


# ---- Bytes ----


def mutate_bytes(data: bytes, rng: Random) -> bytes:
    """One change without regard to what the bytes mean."""
    at, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    match rng.randrange(12):
        case 0:
            return _flipped(data, rng)
        case 1:
            return data[:at]
        case 2:
            return data[:at] + data[end:]
        case 3:
            return data[:at] + data[at:end] * rng.choice((2, 3, 50)) + data[end:] if len(data) < 10**6 else data[at:]
        case 4 | 5:
            return data[:at] + rng.choice(_FRAGMENTS) + data[at:]
        case 6:
            return data[:at] + rng.choice(_FRAGMENTS) + data[end:]
        case 7:
            return data[:at] + rng.randbytes(rng.randint(1, 64)) + data[at + rng.randint(0, 64) :]
        case 8:
            return data[:at] + data[end:] + data[at:end]
        case 9:
            number = rng.choice(_INTEGERS).to_bytes(8, rng.choice(("little", "big")))[: rng.choice((4, 8))]
            return data[:at] + number + data[at + len(number) :]
        case 10:
            text = data.decode("utf-8", errors="replace")
            return text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-7", "latin-1")), errors="replace")
        case _:
            digits = [place for place, byte in enumerate(data[:65_536]) if 48 <= byte <= 57]
            if not digits:
                return _flipped(data, rng)
            place = rng.choice(digits)
            return data[:place] + rng.choice(_NUMBERS).encode() + data[place + 1 :]


def _flipped(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


# ---- Trees ----


def mutate_json(data: bytes, rng: Random) -> bytes:
    """Changes values, keys and nesting of a JSON document; the result may be JSON no more."""
    return _changed_tree(json.loads(data), rng, _raw_json)


def _mutate_json_line(data: bytes, rng: Random) -> bytes:
    lines = data.split(b"\n")
    number = rng.randrange(len(lines))
    lines[number] = mutate_json(lines[number] or b"{}", rng)
    return b"\n".join(lines)


def mutate_yaml(data: bytes, rng: Random) -> bytes:
    """Changes a YAML document as a tree, written in its flow style, which is near to JSON."""
    return _changed_tree(yaml.safe_load(data), rng, lambda rng: rng.choice((_raw_json(rng), *_YAML_FRAGMENTS)))


def mutate_safetensors(data: bytes, rng: Random) -> bytes:
    """Changes the header of a safetensors file: its length, or names, types, shapes and offsets in it."""
    size = int.from_bytes(data[:8], "little")
    header, tensors = data[8 : 8 + size], data[8 + size :]
    if rng.random() < 0.2:
        return rng.choice(_INTEGERS).to_bytes(8, "little") + header + tensors
    if rng.random() < 0.5:
        tree = json.loads(header)
        entry = tree[rng.choice([name for name in tree if name != "__metadata__"])]
        match rng.randrange(4):
            case 0:
                entry["dtype"] = rng.choice(("F16", "BF16", "F64", "I64", "BOOL", "F8_E4M3", "C64", "X", "", 3))
            case 1:
                entry["shape"] = rng.choice(([], [0], [-1], [2**40, 2**40], [1] * 100, [2**63], "x", [1.5], [None]))
            case 2:
                entry["data_offsets"] = rng.choice(([0, 0], [8, 4], [-4, 8], [0, 2**63], [0, len(tensors)], [1], None))
            case _:
                tree[rng.choice(("__metadata__", "x", "", "../x", "x" * 10_000))] = rng.choice((entry, {}, 1, None))
        changed = json.dumps(tree).encode()
    else:
        changed = mutate_json(header, rng)
    return len(changed).to_bytes(8, "little") + changed + tensors


def _changed_tree(tree: Any, rng: Random, raw: Callable[[Random], str]) -> bytes:
    holder = [tree]
    for _ in range(rng.choice((1, 1, 1, 3))):
        _change_one(rng.choice(list(_places(holder))), rng)
    text = json.dumps(holder[0], ensure_ascii=rng.random() < 0.5)
    while f'"{_RAW}"' in text:
        text = text.replace(f'"{_RAW}"', raw(rng), 1)
    while _RAW_KEY in text:
        text = text.replace(_RAW_KEY, rng.choice(("x", "label", "a\\u0000b", "\\ud800", "k" * 300)), 1)
    return text.encode("utf-8", errors="surrogatepass")


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) in a tree of lists and dictionaries."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict) or (isinstance(value, list) and len(value) < 1000):
            yield from _places(value)


def _change_one(place: tuple[Any, Any], rng: Random) -> None:
    container, key = place
    value = container[key]
    match rng.randrange(8):
        case 0:
            del container[key]
            if isinstance(container, dict):
                container[_RAW_KEY] = value
            else:
                container.insert(0, None)
        case 1 if isinstance(container, dict):
            del container[key]
        case 2 if isinstance(value, dict):
            value[_RAW_KEY] = rng.choice((None, 1, _RAW, {}, []))
        case 3:
            container[key] = [value]
        case 4 if isinstance(value, int | float) and not isinstance(value, bool):
            container[key] = rng.choice((-value, value + 1, value * 1000, 2**31, 2**63, 10**30, 0, -1, 0.5, str(value)))
        case 5 if isinstance(value, str):
            container[key] = rng.choice((value * 3, value[:-1], value.upper(), "", "\0", "\ud800", "../" + value, 7))
        case _:
            container[key] = rng.choice((None, True, 0, -1, 1e308, "", "x", [], {}, [None], {"x": [1]}, _RAW, _RAW))


def _raw_json(rng: Random) -> str:
    """A piece of JSON, or nearly, that no tree of Python's can be written as."""
    deep = rng.choice((50, 300, 900, 5000, 100_000))
    return rng.choice(
        (
            "[" * deep + "]" * deep,
            '{"a":' * min(deep, 5000) + "1" + "}" * min(deep, 5000),
            "9" * rng.choice((20, 400, 5000)),
            "1e400",
            "-1e-400",
            "NaN",
            '{"x": 1, "x": 2}',
            '"\\ud800"',
            '"\\u0000"',
            "1" + "0" * 18,
            '"' + "y" * 100_000 + '"',
            ",",
            "'x'",
        )
    )
