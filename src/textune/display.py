"""What a person sees while textune works: nothing, plain lines, or live bars.

All of it goes to standard error, and work goes on when that cannot be written any more.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, cast

from textune.data.wording import counted
from textune.errors import first_rows
from textune.streams import Unfailing
from textune.training.callbacks import Callback, Record
from textune.training.state import TrainingState

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Columns of the evaluation table: the task's first metrics, not all of them.
MAX_METRICS = 4
BEST = "  best so far"


class Display(Callback):
    """Shows nothing. The base of those that show something."""

    def note(self, text: str) -> None:
        """Something the user may want to know, one line."""

    def warning(self, text: str) -> None:
        """Something the user should look at."""

    @contextlib.contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Gives a function to call with the number of rows done since its last call."""
        yield lambda done: None

    def on_skip(self, state: TrainingState, record: Record) -> None:
        self.warning(
            f"step {record['step']} was left out ({record['reason']}): {first_rows(record['row_numbers'])} of the "
            "training split"
        )

    def on_out_of_memory(self, state: TrainingState, record: Record) -> None:
        rows = record["micro_batch_size"]
        self.warning(
            f"memory ran out {record['phase']} of step {record['step']}: from now on at most "
            f"{counted(rows, 'row')} in a pass, and more passes in a step"
        )

    def close(self) -> None:
        """Gives the terminal back."""


class PlainDisplay(Display):
    """Lines of text, for logs and pipes."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def note(self, text: str) -> None:
        self._line(text)

    def warning(self, text: str) -> None:
        self._line(f"warning: {text}")

    @contextlib.contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        self._line(description if total is None else f"{description}: {counted(total, 'row')}")
        yield lambda done: None

    def on_log(self, state: TrainingState, record: Record) -> None:
        self._line(
            f"step {state.step}/{state.total_steps}  epoch {record['epoch']:.2f}  {_loss(record)}  "
            f"lr {record['learning_rate']:.2e}  {record['samples_per_second']:.1f} samples/s  "
            f"{_time_left(state)} left"
        )

    def on_evaluate(self, state: TrainingState, record: Record) -> None:
        shown = "  ".join(f"{name} {_figure(record[name])}" for name in shown_metrics(record))
        self._line(f"evaluation at step {state.step}: {shown}{'  (best so far)' if record['best'] else ''}")

    def _line(self, text: str) -> None:
        stream = Unfailing(sys.stderr)
        stream.write(f"[{_duration(time.monotonic() - self._started)}] {text}\n")
        stream.flush()


class LiveDisplay(Display):
    """Bars that move and a table that grows, for terminals."""

    def __init__(self) -> None:
        from rich.console import Console

        # What is quoted from data stays as it is: no ":heart:" becomes a picture.
        self._console = Console(file=cast(IO[str], Unfailing(sys.stderr)), highlight=False, emoji=False)
        self._progress: Progress | None = None
        self._training: TaskID | None = None
        self._table_head = ""

    def note(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False)

    def warning(self, text: str) -> None:
        self._console.print(f"warning: {text}", style="yellow", markup=False)

    @contextlib.contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        bars = self._bars()
        task = bars.add_task(description, total=total, detail="")
        try:
            yield lambda done: bars.advance(task, done)
        finally:
            bars.remove_task(task)

    def on_train_begin(self, state: TrainingState) -> None:
        self._remove_training()  # of a seed before, which ended with an error
        self._training = self._bars().add_task("training", total=state.total_steps, completed=state.step, detail="")

    def on_step(self, state: TrainingState) -> None:
        if self._progress is not None and self._training is not None:
            self._progress.update(self._training, completed=state.step)

    def on_log(self, state: TrainingState, record: Record) -> None:
        if self._progress is not None and self._training is not None:
            detail = f"{_loss(record)}  lr {record['learning_rate']:.1e}  {record['samples_per_second']:.0f} samples/s"
            self._progress.update(self._training, detail=detail)

    def on_evaluate(self, state: TrainingState, record: Record) -> None:
        names = shown_metrics(record)
        while len(names) > 2 and len(_table_row("epoch", "step", names) + BEST) > self._console.width:
            del names[-2]
        head = _table_row("epoch", "step", names)
        if head != self._table_head:  # the first row, or the terminal has become narrower or wider
            self._console.print(head, style="bold", markup=False)
            self._table_head = head
        cells = [f"{_figure(record[name]):>{len(name)}}" for name in names]
        row = _table_row(f"{record['epoch']:.2f}", str(state.step), cells)
        self._console.print(f"{row}{BEST if record['best'] else ''}", markup=False)

    def on_train_end(self, state: TrainingState) -> None:
        self._remove_training()

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _remove_training(self) -> None:
        if self._progress is not None and self._training is not None:
            self._progress.remove_task(self._training)
        self._training = None

    def _bars(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
                TimeRemainingColumn(compact=True),
                console=self._console,
                transient=True,
            )
            self._progress.start()
        return self._progress


def default_display() -> Display:
    """Live bars where standard error is a terminal, plain lines elsewhere, nothing where it has been closed."""
    if sys.stderr is None:
        return Display()
    return LiveDisplay() if sys.stderr.isatty() else PlainDisplay()


def shown_metrics(record: dict[str, Any]) -> list[str]:
    """The names of the metrics in an evaluation record that a table has room for: the first ones and the loss."""
    names = [name for name in record if name not in {"step", "epoch", "split", "best", "loss"}]
    return [*names[:MAX_METRICS], "loss"]


def _table_row(epoch: str, step: str, cells: Sequence[str]) -> str:
    return "  ".join([f"{epoch:>7}", f"{step:>7}", *(f"{cell:>8}" for cell in cells)])


def _loss(record: Record) -> str:
    """The loss, and whether the last step was left out because its gradient overflowed in fp16."""
    return f"loss {record['loss']:.4f}{'  overflow' if record['grad_norm'] is None else ''}"


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _time_left(state: TrainingState) -> str:
    return _duration(state.seconds / state.step * (state.total_steps - state.step))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"
