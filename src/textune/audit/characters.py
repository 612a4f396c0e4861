"""Characters that do not belong in a text, and the scripts that texts are written in.

Scripts go by ranges of Unicode blocks; languages are told by `textune.audit.languages`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from textune.audit.audited_rows import Texts, joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What the bytes 0x80 to 0xBF of UTF-8 look like when they are read as Windows-1252 (or Latin-1).
_TAIL = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
ODD_CHARACTERS: dict[str, re.Pattern[str]] = {
    "control_characters": re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"),
    "replacement_characters": re.compile("\ufffd"),
    # First bytes of Latin letters, punctuation, emoji, the byte order mark; Cyrillic and CJK where two follow.
    "mojibake": re.compile(
        f"[ÂÃ][{_TAIL}]|â[€‚„†ˆ‰”–˜™œ][{_TAIL}]|ðŸ[{_TAIL}]|ï»¿|ï¿½|(?:[ÐÑ][{_TAIL}]){{2}}|(?:[ã-í][{_TAIL}]{{2}}){{2}}"
    ),
    # Joiners (U+200C, U+200D) and direction marks (U+200E, U+200F) are part of many scripts, tags of some flags.
    "invisible_characters": re.compile(
        "[\u00ad\u180e\u200b\u2060-\u2064\ufeff]|(?<![\U0001f3f4\U000e0020-\U000e007e])[\U000e0001-\U000e007f]"
    ),
    "bidi_controls": re.compile("[\u202a-\u202e\u2066-\u2069]"),
    "private_use_characters": re.compile("[\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff]"),
    "html_remains": re.compile(
        r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?>|&(?:[a-zA-Z]{2,8}|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});"
    ),
}
# All that none of them matches: most texts need no second look.
_PLAIN = re.compile(r"[\t\n\r -%'-;=-~]*")
_WORD = re.compile(r"[^\W_]")

# Where ranges of letters begin, and the script of each: "" for what is no letter of a script named here.
_RANGES = """
0000 - 0041 Latin 005B - 0061 Latin 007B - 00AA Latin 00AB - 00BA Latin 00BB - 00C0 Latin 00D7 - 00D8 Latin 00F7 -
00F8 Latin 02B0 - 0370 Greek 0400 Cyrillic 0530 Armenian 0590 Hebrew 0600 Arabic 0700 - 0750 Arabic 0780 - 08A0 Arabic
0900 Devanagari 0980 Bengali 0A00 Gurmukhi 0A80 Gujarati 0B00 Odia 0B80 Tamil 0C00 Telugu 0C80 Kannada 0D00 Malayalam
0D80 Sinhala 0E00 Thai 0E80 Lao 0F00 Tibetan 1000 Myanmar 10A0 Georgian 1100 Hangul 1200 Ethiopic 13A0 - 1780 Khmer
1800 Mongolian 18B0 - 1E00 Latin 1F00 Greek 2000 - 2C60 Latin 2C80 - 2DE0 Cyrillic 2E00 - 3041 Han/Kana 3100 - 3130
Hangul 3190 - 31F0 Han/Kana 3200 - 3400 Han/Kana 4DC0 - 4E00 Han/Kana A000 - A640 Cyrillic A6A0 - A720 Latin A800 -
A960 Hangul A980 - AC00 Hangul D7FC - F900 Han/Kana FB00 Latin FB13 Armenian FB1D Hebrew FB50 Arabic FE00 - FE70 Arabic
FEFF - FF21 Latin FF3B - FF41 Latin FF5B - FF66 Han/Kana FFA0 Hangul FFE0 - 20000 Han/Kana 323B0 -
"""
_WORDS = _RANGES.split()
_STARTS = np.array([int(word, 16) for word in _WORDS[::2]], np.uint32)
SCRIPTS = ("", *sorted(set(_WORDS[1::2]) - {"-"}))
_SCRIPT_OF_RANGE = np.array([SCRIPTS.index(name.replace("-", "")) for name in _WORDS[1::2]], np.int64)


@dataclass
class CharacterScan:
    """What a pass over all texts finds; rows are counted from 0 over all of them."""

    num_rows: int = 0
    odd: dict[str, dict[int, str | None]] = field(default_factory=dict)
    """Kind of finding -> rows of that kind, and what is odd in them, as it stands or as "U+200B"."""
    _scripts: list[NDArray[np.int64]] = field(default_factory=list)

    @property
    def scripts(self) -> NDArray[np.int64]:
        """[num_rows] the place in `SCRIPTS` of the script that most letters of a row are of; 0 where it has none."""
        return np.concatenate(self._scripts)

    def add(self, texts: Texts) -> None:
        """Looks at a batch of texts, or of pairs as one."""
        sides = [texts[0]] if texts[1] is None else [texts[0], texts[1]]
        for side in sides:
            for row, text in enumerate(side, start=self.num_rows):
                if _PLAIN.fullmatch(text) is None:
                    self._look_closer(row, text)
                if _WORD.search(text) is None:
                    self._add("no_words", row, None)
        self._scripts.append(main_scripts(joined(texts)))
        self.num_rows += len(sides[0])

    def _look_closer(self, row: int, text: str) -> None:
        for kind, pattern in ODD_CHARACTERS.items():
            match = pattern.search(text)
            if match is not None:
                self._add(kind, row, _in_words(match[0]))

    def _add(self, kind: str, row: int, found: str | None) -> None:
        self.odd.setdefault(kind, {}).setdefault(row, found)


def count_scripts(scripts: NDArray[np.int64]) -> Counter[str]:
    """Rows per script, the most frequent first; rows without letters are left out."""
    counts = np.bincount(scripts, minlength=len(SCRIPTS))
    named = {name: int(count) for name, count in zip(SCRIPTS, counts, strict=True) if name and count}
    return Counter(dict(sorted(named.items(), key=lambda item: -item[1])))


def main_scripts(texts: list[str]) -> NDArray[np.int64]:
    """[num_texts] the place in `SCRIPTS` of the script that most letters of a text are of; 0 where it has none."""
    latin = SCRIPTS.index("Latin")
    result = np.array([latin if text.isascii() else -1 for text in texts], np.int64)
    others = np.flatnonzero(result < 0)
    if len(others):
        chosen = [texts[row] for row in others.tolist()]
        codes = np.frombuffer("".join(chosen).encode("utf-32-le"), np.uint32)
        scripts = _SCRIPT_OF_RANGE[np.searchsorted(_STARTS, codes, side="right") - 1]
        rows = np.repeat(np.arange(len(chosen)), [len(text) for text in chosen])
        counts = np.bincount(rows * len(SCRIPTS) + scripts, minlength=len(chosen) * len(SCRIPTS))
        counts = counts.reshape(len(chosen), len(SCRIPTS))
        counts[:, 0] = 0
        result[others] = counts.argmax(axis=1)
    return result


def _in_words(found: str) -> str:
    """Characters that can be seen as they are, others by their numbers."""
    return found[:40] if found.isprintable() else " ".join(f"U+{ord(character):04X}" for character in found[:4])
