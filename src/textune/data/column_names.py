"""Which column is what: text, second text, label and id, named by the user or found by their names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from textune.data.wording import listed, near_name, quoted

if TYPE_CHECKING:
    from datasets import Dataset

# In lower case with underscores; see `_named`.
PAIR_NAMES = (
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("text", "text_pair"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("query", "passage"),
    ("query", "document"),
    ("claim", "evidence"),
)
TEXT_NAMES = (
    "text",
    "sentence",
    "review",
    "content",
    "comment",
    "document",
    "tweet",
    "message",
    "body",
    "utterance",
    "post",
    "question",
    "query",
    "문장",
    "리뷰",
    "텍스트",
    "본문",
    "내용",
    "댓글",
    "의견",
)
CERTAIN_LABEL_NAMES = ("label", "labels", "레이블", "라벨")
"""A column of this name is the label whatever else there is."""
LABEL_NAMES = (
    "class",
    "category",
    "categories",
    "target",
    "sentiment",
    "intent",
    "topic",
    "emotion",
    "gold_label",
    "감정",
    "분류",
)
NUMBER_LABEL_NAMES = ("score", "rating", "stars", "점수", "평점", "별점")
"""Label columns only where they hold numbers: a "score" of words could be anything."""
ID_NAMES = ("id", "guid", "idx", "index", "번호")
"""In the order of preference; more than one of them is no doubt worth stopping for."""
SENTENCE_WORDS = 4
"""A column name of so many words is more likely a text."""
HEADER_ADVICE = "The first line of a CSV or TSV file must hold the names of the columns, such as text,label."


@dataclass
class FoundColumns:
    """The columns of a data set by their meaning, with what there is to say about the search."""

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    id: str | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_columns(
    columns: Sequence[str],
    *,
    number_columns: Sequence[str] = (),
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    task_text_columns: Sequence[str] = (),
    label_required: bool = True,
) -> FoundColumns:
    """Takes the columns that are named and finds the others by their names, where these leave no doubt.

    Args:
        columns: all column names of the training split.
        number_columns: those of them that hold numbers; "score" is a label only there.
        text, text_pair, label: the user's choices. A text named alone stays alone: no second text is looked for.
        task_text_columns: the text columns of a known task, which take the place of the search.
        label_required: whether it is a problem that there is none.

    Missing and doubtful columns are told in `problems`, every find in `notes`.
    """
    found = FoundColumns(text=text, text_pair=text_pair, label=label)
    for flag, name in (("--text", text), ("--text-pair", text_pair), ("--label", label)):
        if name is not None and name not in columns:
            found.problems.append(f"{flag}: {missing_column(name, columns)}")
    if text is None and task_text_columns:
        _take_task_columns(found, task_text_columns, columns)
    elif text is None:
        _find_texts(found, [name for name in columns if name not in (text_pair, label)], columns)
    if label is None:
        candidates = [name for name in columns if name not in (found.text, found.text_pair)]
        _find_label(found, candidates, number_columns, required=label_required)
    _refuse_double_use(found)
    used = {found.text, found.text_pair, found.label}
    found.id = next(iter(_named(ID_NAMES, [name for name in columns if name not in used])), None)
    if found.id is not None:
        found.notes.append(f"id column: {found.id!r} (found by its name)")
    unused = [name for name in columns if name not in used and name != found.id]
    if unused and not found.problems:
        found.notes.append(f"columns not used: {listed(unused)}")
    return found


def missing_column(name: str, columns: Sequence[str]) -> str:
    """Returns the sentence that says that a column is missing, with a near name and the columns there are."""
    return (
        f"there is no column {name!r}.{near_name(name, columns)} The columns are {listed(columns, shown=30)}."
        f"{_missing_header(columns)}"
    )


def arrow_batches(dataset: Dataset, columns: Sequence[str], *, batch_rows: int = 4096) -> Iterator[pa.Table]:
    """Yields the rows of some columns in order, as Arrow tables of at most `batch_rows` rows."""
    yield from dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=batch_rows)


def arrow_type(dataset: Dataset, column: str) -> Any:
    """Returns the `pyarrow.DataType` in which a column is stored."""
    return dataset.data.schema.field(column).type


def _missing_header(columns: Sequence[str]) -> str:
    """A further sentence where a name looks like a text, which the first row then has been taken for."""
    text = next((name for name in columns if len(name.split()) >= SENTENCE_WORDS), None)
    if text is None:
        return ""
    return f" {quoted(text)} looks like a text: is the header line missing? {HEADER_ADVICE}"


def _find_texts(found: FoundColumns, candidates: Sequence[str], columns: Sequence[str]) -> None:
    pairs: list[tuple[str, str]] = []
    if found.text_pair is not None:
        partners = [first for first, second in PAIR_NAMES if _named((second,), [found.text_pair])]
        singles = _named(partners, candidates) or _named(TEXT_NAMES, candidates)
    else:
        pairs = [
            (first, second)
            for first_name, second_name in PAIR_NAMES
            for first in _named((first_name,), candidates)
            for second in _named((second_name,), candidates)
        ]
        in_pairs = {name for pair in pairs for name in pair}
        singles = [name for name in _named(TEXT_NAMES, candidates) if name not in in_pairs]
    if len(pairs) + len(singles) == 0:
        header = _missing_header(columns) or f" Or are these the values of the first row? {HEADER_ADVICE}"
        found.problems.append(
            "No column has a name by which it is known to be the text. "
            f"The columns are {listed(columns, shown=30)}. Name it with --text.{header}"
        )
    elif len(pairs) + len(singles) > 1:
        choices = [f"{first!r} with {second!r}" for first, second in pairs] + [repr(name) for name in singles]
        found.problems.append(
            f"It is not clear which column is the text: it could be {', or '.join(choices)}. "
            "Name it with --text (and the second text, where there is one, with --text-pair)."
        )
    elif pairs:
        found.text, found.text_pair = pairs[0]
        found.notes.append(
            f"text columns: {found.text!r} and {found.text_pair!r} "
            "(found by their names; set them with --text and --text-pair)"
        )
    else:
        found.text = singles[0]
        found.notes.append(f"text column: {found.text!r} (found by its name; set it with --text)")


def _take_task_columns(found: FoundColumns, task_text_columns: Sequence[str], columns: Sequence[str]) -> None:
    for name in task_text_columns:
        if name not in columns:
            found.problems.append(f"The task's text: {missing_column(name, columns)} Name it with --text.")
    found.text = task_text_columns[0]
    if found.text_pair is None and len(task_text_columns) > 1:
        found.text_pair = task_text_columns[1]


def _find_label(
    found: FoundColumns, candidates: Sequence[str], number_columns: Sequence[str], *, required: bool
) -> None:
    numbers = [name for name in candidates if name in number_columns]
    certain = _named(CERTAIN_LABEL_NAMES, candidates)
    choices = certain or _named(LABEL_NAMES, candidates) + _named(NUMBER_LABEL_NAMES, numbers)
    if len(choices) == 1:
        found.label = choices[0]
        found.notes.append(f"label column: {found.label!r} (found by its name; set it with --label)")
    elif choices:
        found.problems.append(
            "It is not clear which column is the label: "
            f"it could be {', or '.join(repr(name) for name in choices)}. Name it with --label."
        )
    else:
        left = f"The columns left are {listed(candidates, shown=30)}" if candidates else "No column is left"
        told = found.problems if required else found.notes
        told.append(f"No column has a name by which it is known to be the label. {left}. Name it with --label.")


def _refuse_double_use(found: FoundColumns) -> None:
    uses = [("--text", found.text), ("--text-pair", found.text_pair), ("--label", found.label)]
    for position, (flag, name) in enumerate(uses):
        for other_flag, other_name in uses[position + 1 :]:
            if name is not None and name == other_name:
                found.problems.append(f"{flag} and {other_flag} both name the column {name!r}.")


def _named(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Returns the columns whose name is one of `names` but for case, blanks and hyphens, in the order of `names`."""
    return [
        column
        for name in names
        for column in columns
        if unicodedata.normalize("NFC", column).strip().casefold().replace("-", "_").replace(" ", "_") == name
    ]
