"""Text files that are not UTF-8: read in another encoding as if they were, and recognised where none was named."""

from __future__ import annotations

import codecs
import io
import re
from typing import BinaryIO

from textune.errors import ConfigError

UTF_8 = "utf-8"
# Codecs of text, but not of files with lines of it.
_NOT_FOR_FILES = {"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"}
_PIECE_BYTES = 2**20

# Name, what people call it, and characters that make up a good part of what is usually written in it: any bytes are
# some text in most of them, but seldom one of these.
_LIKELY = (
    ("cp949", "CP949 (Korean Windows)", "[이가다는을에고의지하은도로나리기아사서한요어음ㅋㅎㅠㅜ]"),
    ("cp932", "Shift JIS (Japanese Windows)", "[ぁ-んァ-ヶー。、]"),
    ("euc_jp", "EUC-JP (Japanese)", "[ぁ-んァ-ヶー。、]"),
    ("gb18030", "GB 18030 (Chinese)", "[的一是不了人我在有他这中大来上个国很好，。]"),
    ("big5", "Big5 (traditional Chinese)", "[的一是不了人我在有他這中大來上個國很好，。]"),
    ("cp1251", "Windows-1251 (Cyrillic)", "[оеаинтсрвлкд]"),
    ("cp1252", "Windows-1252 (Western European)", "(?<=[ -~])[à-öø-üÀ-ÖØ-Üß‘’“”–—…€£°]"),
)
_LEAST_SHARE = 0.15


def check_encoding(name: str) -> str:
    """Returns the encoding by this name; `UTF_8` for all of its names.

    Raises:
        ConfigError: Python cannot read text files in it.
    """
    try:
        codec = codecs.lookup(name)
        codecs.getincrementaldecoder(name)
        # Those that make bytes of bytes, as "zip", lack the mark that Python's own open() looks for.
        usable = codec._is_text_encoding and codec.name.replace("-", "_") not in _NOT_FOR_FILES
    except (LookupError, ValueError):
        usable = False
    if not usable:
        raise ConfigError(
            f"--encoding: expected one that Python knows, such as utf-8, cp949 or cp1252, found {name!r}."
        )
    return UTF_8 if codec.name in (UTF_8, "utf-8-sig") else name


def as_utf_8(stream: BinaryIO, encoding: str) -> BinaryIO:
    """The text of a stream, as UTF-8; what cannot be decoded is a byte that UTF-8 does not have (0xFF)."""
    return stream if encoding == UTF_8 else io.BufferedReader(_Utf8(stream, encoding), _PIECE_BYTES)


class _Utf8(io.RawIOBase):
    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(_MARKED)
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            piece = self._stream.read(_PIECE_BYTES)
            self._ready = self._decoder.decode(piece, final=not piece).encode("utf-8", _MARKED)
            if not piece and not self._ready:
                return 0
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()


def _mark(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handles what cannot be decoded, and then what that has become and cannot be encoded."""
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    if isinstance(error, UnicodeEncodeError):
        return b"\xff" * (error.end - error.start), error.end
    raise error


_MARKED = "textune.marked"
codecs.register_error(_MARKED, _mark)


def likely_encoding(sample: bytes) -> tuple[str, str] | None:
    """The encoding that text is probably in, where most lines with more than ASCII are not UTF-8.

    Args:
        sample: the first lines of a file, whole.

    Returns:
        Its name for Python and for people; None where the text is UTF-8 but for a few lines, or like nothing known.
    """
    lines = [line for line in sample.splitlines() if not line.isascii()]
    if sum(_decoded(line, UTF_8) is None for line in lines) * 2 <= len(lines):
        return None
    shares = [_share_of_usual(lines, name, usual) for name, _, usual in _LIKELY]
    best = max(range(len(shares)), key=shares.__getitem__)
    return _LIKELY[best][:2] if shares[best] >= _LEAST_SHARE else None


def mostly_undecoded(sample: bytes) -> bool:
    """Whether less than half of all lines are UTF-8."""
    lines = sample.splitlines()
    return sum(_decoded(line, UTF_8) is None for line in lines) * 2 > len(lines)


def _share_of_usual(lines: list[bytes], encoding: str, usual: str) -> float:
    """Of the characters beyond ASCII, how many are usual ones; 0 where many lines cannot be decoded."""
    texts = [text for line in lines if (text := _decoded(line, encoding)) is not None]
    if len(texts) < 0.9 * len(lines):
        return 0.0
    joined = "\n".join(texts)
    beyond = sum(not character.isascii() for character in joined)
    return len(re.findall(usual, joined)) / max(beyond, 1)


def _decoded(line: bytes, encoding: str) -> str | None:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError:
        return None
