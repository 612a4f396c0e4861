from __future__ import annotations

import itertools
import random
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textune.audit import near_duplicates
from textune.audit.findings import Audit
from textune.audit.near_duplicates import (
    LONG_WIDTH,
    SHORT_WIDTH,
    SIMILARITY,
    TextStore,
    hashed_shingles,
    jaccard,
    near_groups,
)

from .conftest import SENTENCES, named, rows_of, the


def groups_of(texts: Sequence[str], folder: Path) -> tuple[list[int], int]:
    store = TextStore(folder / "texts.arrow")
    for start in range(0, len(texts), 7):
        store.add(texts[start : start + 7])
    store.close()
    lengths = np.array([len(text) for text in texts])
    groups, width, _ = near_groups(store, np.arange(len(texts)), lengths)
    return groups.tolist(), width


def shingles_of(text: str, width: int) -> set[str]:
    return {text[start : start + width] for start in range(len(text) - width + 1)}


def similarity(first: set[Any], second: set[Any]) -> float:
    return len(first & second) / len(first | second) if first | second else 0.0


def changed(text: str, rng: random.Random, *, times: int) -> str:
    characters = list(text)
    for _ in range(times):
        characters[rng.randrange(len(text))] = rng.choice(string.ascii_lowercase)
    return "".join(characters)


def test_groups_are_those_of_all_pairs(tmp_path: Path) -> None:
    """Against every pair, compared exactly: texts that are nearly equal are in one group, others are not."""
    rng = random.Random(0)
    texts = []
    for _ in range(60):
        original = " ".join(rng.choices(" ".join(SENTENCES).split(), k=12))
        texts += [original, *(changed(original, rng, times=times) for times in (1, 2, 3, 6))]
    texts = list(dict.fromkeys(texts))
    groups, width = groups_of(texts, tmp_path)
    assert width == SHORT_WIDTH
    shingles = [shingles_of(text, width) for text in texts]
    expected = list(range(len(texts)))
    pairs = 0
    for (first, a), (second, b) in itertools.combinations(enumerate(shingles), 2):
        if similarity(a, b) >= SIMILARITY:
            pairs += 1
            joined = (expected[first], expected[second])
            expected = [min(joined) if group in joined else group for group in expected]
    assert pairs > 70
    apart = sum(a != b for a, b in zip(groups, expected, strict=True))
    assert apart <= 1, "a pair is missed once in five hundred times"


def test_many_texts_of_one_pattern_are_one_group(tmp_path: Path) -> None:
    texts = [f"Your order number {number:04} has left our house and will reach you on Friday" for number in range(500)]
    groups, _ = groups_of([*texts, *SENTENCES], tmp_path)
    assert set(groups[:500]) == {0}
    assert len(set(groups[500:])) == len(SENTENCES)


def test_pairs_far_apart_are_found_in_texts_with_a_common_footer(tmp_path: Path) -> None:
    """Texts that agree in a band with hundreds of others, for the footer alone, are compared in the later bands."""
    rng = random.Random(4)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 9))) for _ in range(5000)]
    footer = " ".join(rng.choices(words, k=27))
    texts = [f"{' '.join(rng.choices(words, k=18))} {footer}" for _ in range(3000)]
    pairs = [(place, len(texts) - 1 - 5 * place) for place in range(100)]
    for first, second in pairs:
        texts[second] = changed(texts[first], rng, times=1)
    groups, width = groups_of(texts, tmp_path)
    assert width == SHORT_WIDTH
    assert all(groups[first] == groups[second] for first, second in pairs)
    assert len(set(groups)) == len(texts) - len(pairs)


def test_comparisons_under_a_long_footer_are_few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the footer is four fifths of every text, nearly all of them are candidates of each other."""
    compared: list[int] = []

    def counted(first: Sequence[str], second: Sequence[str], width: int) -> Any:
        compared.append(len(first))
        return jaccard(first, second, width)

    monkeypatch.setattr(near_duplicates, "jaccard", counted)
    rng = random.Random(6)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 9))) for _ in range(1000)]
    footer = " ".join(rng.choices(words, k=20))
    texts = [f"{' '.join(rng.choices(words, k=5))} {footer}" for _ in range(600)]
    pairs = [(place, len(texts) - 1 - 5 * place) for place in range(40)]
    for first, second in pairs:
        texts[second] = changed(texts[first], rng, times=1)
    store = TextStore(tmp_path / "texts.arrow")
    store.add(texts)
    store.close()
    groups, _, num_impatient = near_groups(store, np.arange(len(texts)), np.array([len(text) for text in texts]))
    assert sum(compared) < 20 * len(texts)
    assert 100 < num_impatient < len(texts)
    assert all(groups[first] == groups[second] for first, second in pairs)


def test_no_pair_is_compared_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of texts that are alike in half of their words pairs agree in several bands, without becoming one group."""
    compared: list[tuple[int, int]] = []
    alike = near_duplicates._Sketches.alike

    def noted(sketches: Any, left: Any, right: Any) -> Any:
        compared.extend(zip(left.tolist(), right.tolist(), strict=True))
        return alike(sketches, left, right)

    monkeypatch.setattr(near_duplicates._Sketches, "alike", noted)
    rng = random.Random(5)
    texts = [f"{' '.join(rng.choices(SENTENCES[0].split(), k=9))} {SENTENCES[1]}" for _ in range(200)]
    groups_of(texts, tmp_path)
    assert len(compared) > 100
    assert len({frozenset(pair) for pair in compared}) == len(compared)


def test_long_texts_have_wide_shingles(tmp_path: Path) -> None:
    rng = random.Random(1)
    words = " ".join(SENTENCES).split()
    texts = [" ".join(rng.choices(words, k=150)) for _ in range(3)]
    groups, width = groups_of([*texts, f"{texts[0]} indeed"], tmp_path)
    assert (groups, width) == ([0, 1, 2, 0], LONG_WIDTH)


def test_texts_shorter_than_a_shingle_are_like_none(tmp_path: Path) -> None:
    groups, _ = groups_of(["a", "b", "ab", "", "abc", "abcd", "abcde"], tmp_path)
    assert groups == list(range(7))


def test_no_texts_and_one(tmp_path: Path) -> None:
    assert groups_of(["only this"], tmp_path)[0] == [0]


def test_texts_are_found_again_in_their_places(tmp_path: Path) -> None:
    store = TextStore(tmp_path / "texts.arrow")
    for texts in (["a", "b", "c"], [], ["d"], ["e", "f"]):
        store.add(texts)
    store.close()
    assert store.take(np.array([0, 2, 3, 5])) == ["a", "c", "d", "f"]
    assert store.take(np.array([], np.int64)) == []


@given(st.lists(st.text(max_size=12), max_size=6), st.integers(1, 5))
def test_shingles_are_hashed_text_by_text(texts: list[str], width: int) -> None:
    """No shingle reaches over the end of a text, and equal ones have equal hashes."""
    hashes, counts = hashed_shingles(texts, width)
    expected = [text[at : at + width] for text in texts for at in range(len(text) - width + 1)]
    assert counts.tolist() == [max(0, len(text) - width + 1) for text in texts]
    assert len(hashes) == len(expected)
    assert len(set(zip(expected, hashes.tolist(), strict=True))) == len(set(expected)) == len(set(hashes.tolist()))


@given(st.lists(st.tuples(*[st.text("abü", max_size=12)] * 2), min_size=1, max_size=6), st.integers(1, 5))
def test_jaccard(pairs: list[tuple[str, str]], width: int) -> None:
    first, second = zip(*pairs, strict=True)
    expected = [similarity(shingles_of(a, width), shingles_of(b, width)) for a, b in pairs]
    assert jaccard(first, second, width).tolist() == expected


def test_near_rows_are_found_within_and_across_splits(audit: Callable[..., Audit]) -> None:
    texts = [*SENTENCES[:4], f"{SENTENCES[1]}!", SENTENCES[2]]
    validation = [SENTENCES[3].replace("path", "paths"), SENTENCES[5], f"{SENTENCES[5]} ."]
    found = audit({"train": rows_of(texts, "ab"), "validation": rows_of(validation, "ab")})
    assert named(found, "near_duplicates") == {"train": [5], "validation": [3]}
    leak = the(found, "leaked_near_duplicates")
    assert (leak.split, leak.other_split, leak.rows.tolist()) == ("validation", "train", [1])
    assert (
        leak.message == "1 of 3 validation rows (33 %) is nearly equal to a row of train; 1 of them with another label"
    )
    assert named(found, "duplicates") == {"train": [6]}, "an equal row is not told again"


def test_every_band_is_needed_by_some_pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a single band half of the pairs at the threshold would be missed: the others do their part."""
    rng = random.Random(2)
    originals = [" ".join(rng.choices(" ".join(SENTENCES).split(), k=12)) for _ in range(80)]
    texts = [text for original in originals for text in (original, changed(original, rng, times=2))]
    joined = {}
    for bands in (1, near_duplicates.BANDS):
        monkeypatch.setattr(near_duplicates, "BANDS", bands)
        monkeypatch.setattr(near_duplicates, "NUM_HASHES", bands * near_duplicates.ROWS_PER_BAND)
        joined[bands] = len(texts) - len(set(groups_of(texts, tmp_path)[0]))
    assert joined[1] < 0.9 * joined[20]
