from __future__ import annotations

import unicodedata
from typing import Literal

import pytest

from textune.data.column_names import find_columns


@pytest.mark.parametrize(
    ("columns", "text", "text_pair"),
    [
        (["label", "text"], "text", None),
        (["Review", "label"], "Review", None),
        (["sentence1", "sentence2", "label", "idx"], "sentence1", "sentence2"),
        (["question", "sentence", "label"], "question", "sentence"),
        (["text", "text_pair", "label"], "text", "text_pair"),
        (["Text A", "text-b", "label"], "Text A", "text-b"),
        (["content", "title", "label"], "content", None),
    ],
)
def test_texts_are_found_by_names_that_leave_no_doubt(columns: list[str], text: str, text_pair: str | None) -> None:
    found = find_columns(columns)

    assert (found.text, found.text_pair, found.problems) == (text, text_pair, [])
    assert found.label == "label"


def test_every_find_is_told_with_its_flag() -> None:
    found = find_columns(["review", "label", "guid", "date"])

    assert found.notes == [
        "text column: 'review' (found by its name; set it with --text)",
        "label column: 'label' (found by its name; set it with --label)",
        "id column: 'guid' (found by its name)",
        "columns not used: 'date'",
    ]


def test_two_candidates_are_a_doubt_that_names_them_and_the_flags() -> None:
    found = find_columns(["review", "sentence1", "sentence2", "class", "Category"])

    assert found.problems == [
        (
            "It is not clear which column is the text: it could be 'sentence1' with 'sentence2', or 'review'. "
            "Name it with --text (and the second text, where there is one, with --text-pair)."
        ),
        "It is not clear which column is the label: it could be 'class', or 'Category'. Name it with --label.",
    ]


def test_a_column_called_label_is_the_label_whatever_else_there_is() -> None:
    found = find_columns(["text", "topic", "Label", "category"])

    assert (found.label, found.problems) == ("Label", [])


def test_nothing_found_lists_the_columns() -> None:
    found = find_columns(["a", "b"])

    assert found.problems == [
        (
            "No column has a name by which it is known to be the text. The columns are 'a', 'b'. Name it with --text. "
            "Or are these the values of the first row? "
            "The first line of a CSV or TSV file must hold the names of the columns, such as text,label."
        ),
        (
            "No column has a name by which it is known to be the label. The columns left are 'a', 'b'. "
            "Name it with --label."
        ),
    ]


def test_a_sentence_for_a_column_name_says_that_the_header_is_missing() -> None:
    columns = ["이 영화 정말 재미있어요", "긍정"]
    for options in ({}, {"text": "text"}):
        (first, *_) = find_columns(columns, **options).problems
        assert first.endswith(
            "'이 영화 정말 재미있어요' looks like a text: is the header line missing? "
            "The first line of a CSV or TSV file must hold the names of the columns, such as text,label."
        )
    assert "header" not in " ".join(find_columns(["note", "date of review"]).problems)


def test_named_columns_must_exist_and_near_names_are_shown() -> None:
    found = find_columns(["TEXT", "labl", "x"], text="text", text_pair="zzz", label="label")

    assert found.problems == [
        "--text: there is no column 'text'. Did you mean 'TEXT'? The columns are 'TEXT', 'labl', 'x'.",
        "--text-pair: there is no column 'zzz'. The columns are 'TEXT', 'labl', 'x'.",
        "--label: there is no column 'label'. Did you mean 'labl'? The columns are 'TEXT', 'labl', 'x'.",
    ]


def test_one_column_cannot_be_two_things() -> None:
    found = find_columns(["text", "y"], text="text", text_pair="text", label="y")

    assert found.problems == ["--text and --text-pair both name the column 'text'."]


def test_a_text_named_alone_stays_alone() -> None:
    found = find_columns(["sentence1", "sentence2", "label"], text="sentence1")

    assert (found.text, found.text_pair) == ("sentence1", None)
    assert "columns not used: 'sentence2'" in found.notes


def test_the_first_text_is_found_beside_a_named_second() -> None:
    assert find_columns(["premise", "hypothesis", "label"], text_pair="hypothesis").text == "premise"
    assert find_columns(["sentence", "other", "label"], text_pair="other").text == "sentence"


def test_a_score_is_a_label_only_where_it_holds_numbers() -> None:
    assert find_columns(["text", "score"], number_columns=["score"]).label == "score"
    assert find_columns(["text", "score"]).label is None


def test_a_task_names_its_columns() -> None:
    columns = ["question", "sentence", "review", "label", "idx"]

    found = find_columns(columns, task_text_columns=("question", "sentence"))
    assert (found.text, found.text_pair, found.label, found.id) == ("question", "sentence", "label", "idx")

    found = find_columns(["sentences", "label"], task_text_columns=("sentence",))
    assert found.problems == [
        (
            "The task's text: there is no column 'sentence'. Did you mean 'sentences'? "
            "The columns are 'sentences', 'label'. Name it with --text."
        )
    ]


def test_ids_are_taken_in_the_order_of_preference() -> None:
    assert find_columns(["index", "text", "label", "ID"]).id == "ID"
    assert find_columns(["text", "label"]).id is None


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_korean_names_are_known(form: Literal["NFC", "NFD"]) -> None:
    for text in ("문장", "리뷰", "텍스트", "본문", "내용", "댓글", "의견"):
        for label in ("레이블", "라벨", "감정", "분류", "점수", "평점", "별점"):
            names = [unicodedata.normalize(form, name) for name in ("번호", text, label)]
            found = find_columns(names, number_columns=names[2:])
            assert ([found.id, found.text, found.label], found.problems) == (names, [])
    assert find_columns(["내용", "점수"]).label is None
