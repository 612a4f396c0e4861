from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from textune.evaluation.marked_words import marked_words


def rows_with(word: str, count: int, others: int) -> list[tuple[str, ...]]:
    return [(f"the film {word} .",)] * count + [("the film .",)] * others


def test_a_word_that_marks_errors_is_found() -> None:
    texts = rows_with("Not", 20, 80)
    wrong = np.array([True] * 15 + [False] * 5 + [True] * 5 + [False] * 75)
    (found,) = marked_words(texts, wrong)
    assert (found.word, found.rows, found.errors) == ("not", 20, 15)
    exact = stats.fisher_exact([[15, 5], [5, 75]], alternative="greater").pvalue
    assert found.p_value == pytest.approx(exact)  # "the" and "film" are in all rows, so that one word is tested
    wilson = stats.binomtest(15, 20).proportion_ci(method="wilson")
    assert found.interval == pytest.approx((wilson.low, wilson.high))
    assert found.as_json()["error_rate"] == 0.75


def test_both_texts_count_and_a_word_twice_in_a_row_counts_once() -> None:
    texts = [("don't stop", "never"), ("never never", "x")] * 10 + [("go", "on")] * 60
    wrong = np.array([True] * 20 + [False] * 60)
    found = {word.word: word.rows for word in marked_words(texts, wrong)}
    assert found["never"] == 20 and found["don't"] == 10


@pytest.mark.parametrize("wrong", [np.zeros(100, bool), np.ones(100, bool)])
def test_no_error_and_nothing_but_errors(wrong: np.ndarray) -> None:
    assert marked_words(rows_with("not", 20, 80), wrong) == []


def test_chance_is_hardly_ever_taken_for_a_mark() -> None:
    """Errors at random: a set of words that is not empty in at most about 5 % of the data sets."""
    random = np.random.default_rng(0)
    vocabulary = [f"w{number}" for number in range(60)]
    alarms = 0
    for _ in range(100):
        texts = [(" ".join(random.choice(vocabulary, 6)),) for _ in range(150)]
        alarms += bool(marked_words(texts, random.random(150) < 0.2))
    assert alarms <= 8
