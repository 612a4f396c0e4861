from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textune.durations import Duration

LESS_THAN_A_BILLION = st.integers(0, 10**9)
STEPS = st.integers(1, 10**7)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("500steps", 500),
        ("1step", 1),
        ("1 epoch", 50),
        ("3epochs", 150),
        ("0.5 epochs", 25),
        (".5epochs", 25),
        ("3.epochs", 150),
        ("1600examples", 100),
        ("1601 examples", 101),
        ("1example", 1),
        ("10%", 20),
        ("10 percent", 20),
        ("100%", 200),
        (" 2 EPOCHS ", 100),
        ("0steps", 0),
        ("2.5steps", 3),
        ("0.01epochs", 1),
    ],
)
def test_lengths_become_steps(text: str, steps: int) -> None:
    assert Duration.parse(text).in_steps(steps_per_epoch=50, batch_size=16, total_steps=200) == steps


@pytest.mark.parametrize(
    "text",
    ["", "epochs", "3", "-1epochs", "3 weeks", "1e3steps", "1,5epochs", "three epochs", "nan%", "1epoch 2steps", "1%%"],
)
def test_other_texts_are_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match='as "500steps", "1epoch" or "10%"') as caught:
        Duration.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("90 seconds", 90), ("10min", 600), ("1 minute", 60), ("0.5h", 1800), ("2hours", 7200)],
)
def test_time_by_the_clock(text: str, seconds: int) -> None:
    duration = Duration.parse(text, by_clock=True)
    assert (duration.value, duration.unit) == (seconds, "seconds")
    with pytest.raises(ValueError, match=r"taken by checkpoint\.every alone") as caught:
        Duration.parse(text)
    assert repr(text) in str(caught.value)
    with pytest.raises(AssertionError):
        duration.in_steps(steps_per_epoch=1, batch_size=1, total_steps=1)


def test_more_than_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at most 100%, found '101%'"):
        Duration.parse("101%")
    with pytest.raises(ValueError, match=r"expected at most 10\^15 steps"):
        Duration.parse("9" * 400 + "steps")


@given(percent=st.integers(0, 100), hundreds=st.integers(1, 10**9))
def test_percentages_are_exact(percent: int, hundreds: int) -> None:
    """In floating point, 29 % of 100 is a little less than 29."""
    total = 100 * hundreds
    scale = {"steps_per_epoch": 1, "batch_size": 1, "total_steps": total}
    assert Duration.parse(f"{percent}%").in_steps(**scale) == percent * hundreds
    assert Duration.parse(f"{percent}%").as_interval(**scale) == max(1, percent * hundreds)


@given(hundredths=LESS_THAN_A_BILLION, steps_per_epoch=STEPS)
def test_a_length_is_rounded_up_and_an_interval_down(hundredths: int, steps_per_epoch: int) -> None:
    duration = Duration.parse(f"{hundredths / 100:.2f}epochs")
    scale = {"steps_per_epoch": steps_per_epoch, "batch_size": 8, "total_steps": 10**9}
    whole, part = divmod(hundredths * steps_per_epoch, 100)
    assert duration.in_steps(**scale) == whole + (part > 0)
    assert duration.as_interval(**scale) == max(1, whole)


@given(steps_per_epoch=STEPS)
def test_a_twentieth_of_an_epoch_happens_at_least_twenty_times_where_there_are_as_many_steps(
    steps_per_epoch: int,
) -> None:
    interval = Duration.parse("0.05epochs").as_interval(steps_per_epoch=steps_per_epoch, batch_size=8, total_steps=1)
    assert interval >= 1
    assert steps_per_epoch // interval >= min(20, steps_per_epoch)


@given(examples=LESS_THAN_A_BILLION, batch_size=st.integers(1, 4096))
def test_no_example_is_left_out(examples: int, batch_size: int) -> None:
    steps = Duration.parse(f"{examples}examples").in_steps(steps_per_epoch=1, batch_size=batch_size)
    assert steps == math.ceil(examples / batch_size)
    assert steps * batch_size >= examples


@given(text=st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        duration = Duration.parse(text)
    except ValueError:
        return
    assert 0 <= duration.value <= 10**15


def test_a_percentage_needs_the_total() -> None:
    with pytest.raises(AssertionError):
        Duration.parse("5%").in_steps(steps_per_epoch=1, batch_size=1)
