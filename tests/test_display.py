from __future__ import annotations

import errno
import io
import re
import sys
from typing import Any

import pytest

from textune.display import Display, LiveDisplay, PlainDisplay, default_display, shown_metrics
from textune.training.state import TrainingState

LOG = {"epoch": 0.5, "loss": 0.6931, "learning_rate": 5e-5, "samples_per_second": 41.26, "grad_norm": 1.0}
EVALUATION: dict[str, Any] = {
    "step": 8,
    "epoch": 1.0,
    "accuracy": 0.75,
    "f1": None,
    "precision": 0.5,
    "recall": 0.25,
    "f1_macro": 0.1,
    "loss": 0.5,
    "best": True,
}


@pytest.fixture
def state() -> TrainingState:
    return TrainingState(total_steps=20, step=8, seconds=4.0)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was written to standard error, without the clock in front; nothing goes to standard output."""
    captured = capsys.readouterr()
    assert captured.out == ""
    stamped = captured.err.splitlines()
    assert all(re.match(r"\[\d\d:\d\d\] ", line) for line in stamped)
    return [line[8:] for line in stamped]


def test_plain_lines(capsys: pytest.CaptureFixture[str], state: TrainingState) -> None:
    display = PlainDisplay()
    display.note("a [note]")
    display.warning("look here")
    display.on_train_begin(state)
    display.on_step(state)
    display.on_log(state, LOG)
    display.on_evaluate(state, EVALUATION)
    display.on_train_end(state)
    display.close()
    figures = "accuracy 0.7500  f1 undefined  precision 0.5000  recall 0.2500  loss 0.5000"
    assert lines(capsys) == [
        "a [note]",
        "warning: look here",
        "step 8/20  epoch 0.50  loss 0.6931  lr 5.00e-05  41.3 samples/s  00:06 left",
        f"evaluation at step 8: {figures}  (best so far)",
    ]


def test_a_gradient_that_overflowed_is_shown(capsys: pytest.CaptureFixture[str], state: TrainingState) -> None:
    PlainDisplay().on_log(state, LOG | {"grad_norm": None})
    (line,) = lines(capsys)
    assert line == "step 8/20  epoch 0.50  loss 0.6931  overflow  lr 5.00e-05  41.3 samples/s  00:06 left"


@pytest.mark.parametrize("make", [PlainDisplay, LiveDisplay])
def test_what_goes_wrong_on_the_way_is_a_warning(
    make: type[Display], state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(make, "warning", lambda self, text: said.append(text))
    display = make()
    display.on_skip(state, {"step": 3, "epoch": 0.5, "reason": "loss nan", "ids": ["a", "b"], "row_numbers": [7, 4]})
    display.on_out_of_memory(state, {"step": 3, "phase": "in a pass", "micro_batch_size": 1})
    assert said == [
        "step 3 was left out (loss nan): rows 7, 4 of the training split",
        "memory ran out in a pass of step 3: from now on at most 1 row in a pass, and more passes in a step",
    ]


def test_plain_progress(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay()
    with display.progress("tokenising train", 1234) as advance:
        advance(1000)
    with display.progress("predicting new.csv", None) as advance:
        advance(1000)
    assert lines(capsys) == ["tokenising train: 1,234 rows", "predicting new.csv"]


def test_nothing_is_shown_by_the_base(capsys: pytest.CaptureFixture[str], state: TrainingState) -> None:
    display = Display()
    display.note("a")
    display.warning("b")
    with display.progress("c", None) as advance:
        advance(1)
    display.on_log(state, LOG)
    display.close()
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_for(monkeypatch: pytest.MonkeyPatch, *, columns: int = 140) -> Terminal:
    """Puts a terminal in place of standard error; called in the test, since pytest replaces it before each."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": str(columns)}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return stream


def visible(terminal: Terminal) -> str:
    """The text without control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())


def test_live_bars_and_table(monkeypatch: pytest.MonkeyPatch, state: TrainingState) -> None:
    terminal = terminal_for(monkeypatch)
    display = default_display()
    assert isinstance(display, LiveDisplay)
    display.note("label [/red] [bold]")
    with display.progress("tokenising train", 10) as advance:
        advance(10)
    display.on_train_begin(TrainingState(total_steps=20))
    display.on_step(state)
    display.on_log(state, LOG)
    display.on_evaluate(state, EVALUATION)
    display.on_evaluate(state, {**EVALUATION, "best": False})
    display.on_train_end(state)
    display.close()
    text = visible(terminal)
    assert "label [/red] [bold]" in text, "shown as it is, not read as markup"
    assert "tokenising train" in text
    words = " ".join(text.split())  # wherever a line was broken
    figures = "1.00 8 0.7500 undefined 0.5000 0.2500 0.5000"
    assert "epoch step accuracy f1 precision recall loss" in words
    assert f"{figures} best so far" in words
    assert words.count(figures) == 2
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l"), "the cursor is back"


def test_the_table_keeps_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch, state: TrainingState) -> None:
    terminal = terminal_for(monkeypatch, columns=80)
    figures = dict.fromkeys(["accuracy", "f1_macro", "f1_weighted", "matthews_correlation", "loss"], 0.5)
    record = {"step": 8, "epoch": 1.0, **figures, "best": True}
    display = LiveDisplay()
    display.on_evaluate(state, record)
    display._console.width = 120
    display.on_evaluate(state, record)
    display.on_evaluate(state, {**record, "best": False})
    narrow = "  epoch     step  accuracy  f1_macro  f1_weighted"
    row = "   1.00        8    0.5000    0.5000       0.5000"
    assert visible(terminal).splitlines() == [
        f"{narrow}      loss",
        f"{row}    0.5000  best so far",
        f"{narrow}  matthews_correlation      loss",
        f"{row}                0.5000    0.5000  best so far",
        f"{row}                0.5000    0.5000",
    ]


def test_live_progress_without_a_total(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    display = LiveDisplay()
    with display.progress("predicting new.csv", None) as advance:
        advance(4096)
    display.close()
    display.close()
    assert "predicting new.csv" in visible(terminal)


def test_descriptions_are_not_read_as_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    display = LiveDisplay()
    with display.progress("predicting a[/b][red].csv", None) as advance:
        advance(1)
    display.close()
    assert "a[/b][red].csv" in visible(terminal)


def test_nothing_is_replaced_by_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    display = LiveDisplay()
    display.note("label ':heart:'")
    display.warning("column ':smile:'")
    display.close()
    assert "':heart:'" in visible(terminal) and "':smile:'" in visible(terminal)


def test_the_bar_of_a_training_that_failed_goes_when_the_next_begins(
    monkeypatch: pytest.MonkeyPatch, state: TrainingState
) -> None:
    terminal_for(monkeypatch)
    display = LiveDisplay()
    display.on_train_begin(state)
    display.on_train_begin(TrainingState(total_steps=20))  # and no end of the first
    assert display._progress is not None
    (bar,) = display._progress.tasks
    assert bar.completed == 0
    display.on_train_end(state)
    assert display._progress.tasks == []
    display.close()


class FullDisk(Terminal):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        self.write("")


@pytest.mark.parametrize("make", [PlainDisplay, LiveDisplay])
def test_what_cannot_be_written_stops_nothing(
    make: type[Display], state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", FullDisk())
    display = make()
    display.note("a")
    with display.progress("tokenising train", 10) as advance:
        advance(10)
    display.on_train_begin(state)
    display.on_log(state, LOG)
    display.on_evaluate(state, EVALUATION)
    display.on_train_end(state)
    display.close()


def test_nothing_is_shown_where_standard_error_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert type(default_display()) is Display


def test_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(default_display(), PlainDisplay)


def test_shown_metrics() -> None:
    assert shown_metrics(EVALUATION) == ["accuracy", "f1", "precision", "recall", "loss"]
    assert shown_metrics({"step": 1, "rmse": 1.0, "loss": 1.0, "best": True}) == ["rmse", "loss"]


@pytest.mark.parametrize(("seconds", "words"), [(0.5, "00:01"), (59.6 * 8 / 12, "01:00"), (3600 * 8 / 12, "1:00:00")])
def test_time_left(capsys: pytest.CaptureFixture[str], seconds: float, words: str) -> None:
    PlainDisplay().on_log(TrainingState(total_steps=20, step=8, seconds=seconds), LOG)
    assert lines(capsys)[0].endswith(f"  {words} left")
