from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from textune.data.schema import Schema, resolve_schema
from textune.errors import CheckpointError, ConfigError, DataError


@dataclass(frozen=True)
class Task:
    """What `resolve_schema` reads of a GlueTask."""

    name: str
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...]


def data(labels: list[Any], *, feature: Any = None) -> DatasetDict:
    columns = {"text": [f"text {row}" for row in range(len(labels))], "label": labels}
    features = None if feature is None else Features({"text": Value("string"), "label": feature})
    return DatasetDict(train=Dataset.from_dict(columns, features=features))


def resolve(labels: list[Any], **options: Any) -> Schema:
    feature = options.pop("feature", None)
    return resolve_schema(data(labels, feature=feature), **options)


@pytest.mark.parametrize(
    ("labels", "problem_type", "label_names"),
    [
        (["spam", "ham", "spam"], "single_label_classification", ("ham", "spam")),
        (["10", "2", "2", "10"], "single_label_classification", ("2", "10")),
        (["1.0", "0.0"], "single_label_classification", ("0.0", "1.0")),
        ([1.0, 0.0], "single_label_classification", ("0", "1")),
        ([1, 0, -1, 1, 0, -1], "single_label_classification", ("-1", "0", "1")),
        ([True, False], "single_label_classification", ("false", "true")),
        (["True", "False"], "single_label_classification", ("False", "True")),
        (["3.8", "5", "0.2"], "regression", ()),
        ([3.8, 5.0, 0.2], "regression", ()),
        (["3.8", "5", "n/a", "1.5"], "regression", ()),
        (["1", "2", "unknown", "1"], "single_label_classification", ("1", "2", "unknown")),
        (list(range(100)), "regression", ()),
        ([str(row % 77) for row in range(1000)], "single_label_classification", tuple(map(str, range(77)))),
        ([["b"], ["a", "b"], []], "multi_label_classification", ("a", "b")),
        ([[2], [0, 1]], "multi_label_classification", ("0", "1", "2")),
    ],
)
def test_problem_type_and_names_are_found(labels: list[Any], problem_type: str, label_names: tuple[str, ...]) -> None:
    schema = resolve(labels)

    assert (schema.problem_type, schema.label_names) == (problem_type, label_names)
    assert schema.num_labels == max(len(label_names), 1)


def test_the_choice_over_whole_numbers_is_told_with_its_flag() -> None:
    assert (
        "problem: single-label classification (3 different whole numbers as classes; "
        "if they are quantities: --problem-type regression)"
    ) in resolve([0, 1, 2] * 5).notes
    assert (
        "problem: regression (100 different whole numbers in 100 rows; "
        "if they are classes: --problem-type single_label_classification)"
    ) in resolve(list(range(100))).notes


def test_given_problem_type_wins() -> None:
    assert resolve([0, 1, 2] * 5, problem_type="regression").problem_type == "regression"
    schema = resolve(["0.5", "1.5"], problem_type="single_label_classification")
    assert schema.label_names == ("0.5", "1.5")


def test_class_label_names_keep_their_order() -> None:
    schema = resolve([0, 1, 0], feature=ClassLabel(names=["unrelated", "related", "never"]))

    assert schema.label_names == ("unrelated", "related", "never")
    assert "labels without a training row: 'never'" in schema.notes


def test_lists_of_class_ids_have_names() -> None:
    schema = resolve([[0], [1, 0]], feature=List(ClassLabel(names=["joy", "anger"])))

    assert (schema.problem_type, schema.label_names) == ("multi_label_classification", ("joy", "anger"))


def test_separated_text_is_multi_label() -> None:
    schema = resolve(["b|a", "a", "", "c"], label_separator="|")

    assert (schema.problem_type, schema.label_names) == ("multi_label_classification", ("a", "b", "c"))
    assert schema.label_separator == "|"


def test_given_names_set_the_order() -> None:
    assert resolve(["no", "yes"], label_names=["yes", "no"]).label_names == ("yes", "no")
    assert resolve([0, 1, 2], label_names=["no", "maybe", "yes"]).label_names == ("no", "maybe", "yes")


def test_names_come_from_the_training_split_only() -> None:
    splits = data(["a", "b"])
    splits["validation"] = Dataset.from_dict({"text": ["x"], "label": ["c"]})

    assert resolve_schema(splits).label_names == ("a", "b")


def test_given_names_must_cover_the_data() -> None:
    with pytest.raises(ConfigError) as error:
        resolve(["no", "yes", "maybe"], label_names=["no", "yess"])
    assert error.value.problems == [
        "--label-names: 'no', 'yess' do not cover the labels 'maybe', 'yes' of column 'label' in the training split."
    ]
    with pytest.raises(ConfigError, match=r"--label-names: 'no', 'yes' do not cover the labels '2' of column 'label'"):
        resolve([0, 1, 2], label_names=["no", "yes"])


def test_names_for_labels_that_start_at_one() -> None:
    with pytest.raises(ConfigError) as error:
        resolve([1, 2, 3, 1, 2, 3], label_names=["bad", "so-so", "good"])
    (problem,) = error.value.problems
    assert problem == (
        "--label-names: they name the labels 0, 1, 2, ..., but those of column 'label' in the training split "
        "start at 1. Subtract 1 from them, or leave the names out."
    )


@pytest.mark.parametrize(
    ("labels", "separator"),
    [
        (["a|b|neg", "a|pos", "b|pos", "pos", "a|b|pos", "neg", "b|neg", "a|neg"], "|"),
        (["red", "green", "red; green"], ";"),
        (["New York, NY", "Boston, MA", "Albany, NY"], None),
        (["yes", "no", "yes, but"], None),
        (["a|b|neg", "pos"], None),
    ],
)
def test_labels_that_look_like_several_are_warned_of(labels: list[str], separator: str | None) -> None:
    found = [note for note in resolve(labels * 2).notes if "several labels" in note]
    if separator is None:
        assert found == []
        return
    look = f"warning: labels such as {max(labels, key=len)!r} look like several labels in one"
    assert found == [f"{look}: --label-separator '{separator}' takes them apart"]
    assert not any("several" in note for note in resolve(labels, label_separator=separator).notes)


def test_numbers_with_decimal_commas_are_warned_of() -> None:
    notes = resolve(["0,94", "1,5", "2,25", "3"]).notes
    assert "warning: '0,94' has a decimal comma; write 0.94, if the labels are quantities" in notes
    assert not any("comma" in note for note in resolve(["1,2,3", "4,5,6"]).notes)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        resolve([True, False], text="txt", problem_type="regression", label_names=["a", "a"], label_separator=";")

    assert error.value.problems == [
        "--text: there is no column 'txt'. Did you mean 'text'? The columns are 'text', 'label'.",
        "--label-names: 'a' is named more than once.",
        "--label-separator: only text can be split, but the label column 'label' holds booleans.",
        "--label-separator: it is for multi-label data, not for regression.",
        "--label-names: regression has no label names.",
        "--problem-type: regression needs numbers, but the label column 'label' holds booleans.",
    ]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([["a"], ["b"]], {"problem_type": "single_label_classification"}, "needs one label per row"),
        (["a", "b"], {"problem_type": "multi_label_classification"}, "multi-label needs lists or --label-separator"),
        (["a", "b"], {"problem_type": "ranking"}, "--problem-type: 'ranking' is not one of"),
        (["a", "b"], {"label_separator": ""}, "the separator is empty"),
        (["a", "b"], {"label_names": ["a", " "]}, "a name is empty"),
        (["a", "b"], {"label_names": ["a"]}, "at least two names are needed, found 'a'"),
        ([[1, 0, 0], [0, 1, 1]], {}, "holds rows of 0 and 1 (multi-hot)"),
        ([{"a": 1}, {"a": 2}], {}, "holds values that cannot be labels"),
    ],
)
def test_contradictory_options(labels: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(labels, **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "a", ""], "Every training row has the same label 'a' in column 'label': there is nothing to learn."),
        ([2.5, 2.5], "Every training row has the same number '2.5'"),
        ([["a"], []], "Every training row has the same label 'a'"),
        (["", ""], "The training split has no labels: column 'label' holds only null, blanks or -1."),
        ([-1, -1], "The training split has no labels"),
        ([None, None], "The training split has no labels"),
        ([], "The training split has no rows."),
    ],
)
def test_labels_that_teach_nothing(labels: list[Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        resolve(labels)
    assert message in str(error.value)


def test_spellings_that_differ_in_case_or_blanks_are_warned_of_and_kept() -> None:
    schema = resolve(["Spam", "spam ", "ham", "ham", "Spam"])

    assert schema.label_names == ("ham", "Spam", "spam ")
    assert schema.notes[-2:] == (
        "labels with one training row only: 'spam '",
        (
            "warning: labels that differ only in case or surrounding blanks are kept apart: "
            "'Spam' (2 rows), 'spam ' (1 rows)"
        ),
    )


@pytest.mark.parametrize("labels", [["긍정", "부정", "긍정"], ["3.5", "1.25", "4"]])
def test_a_label_column_named_like_a_label_is_doubted(labels: list[str]) -> None:
    splits = DatasetDict(train=Dataset.from_dict({"좋은 제품": ["가", "나", "다"], labels[0]: labels}))

    notes = resolve_schema(splits, text="좋은 제품", label=labels[0]).notes
    doubt = f"warning: column '{labels[0]}' holds its own name as a label: is the header line missing"
    assert [note.startswith(doubt) for note in notes if "header" in note] == [True]
    assert not any("header" in note for note in resolve(labels).notes)


def test_a_column_of_many_words_is_doubted() -> None:
    schema = resolve([f"sentence {row} of many" for row in range(30)])

    assert any("30 different labels in 30 rows; is this the label column?" in note for note in schema.notes)


def test_a_task_gives_columns_names_and_type() -> None:
    task: Any = Task("mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"))
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1, 0], "idx": [0, 1]}

    schema = resolve_schema(DatasetDict(train=Dataset.from_dict(columns)), task=task)

    assert (schema.text, schema.text_pair, schema.label, schema.id) == ("sentence1", "sentence2", "label", "idx")
    assert schema.label_names == ("not_equivalent", "equivalent")

    task = Task("stsb", ("sentence1", "sentence2"), ())
    assert resolve_schema(DatasetDict(train=Dataset.from_dict(columns)), task=task).problem_type == "regression"


def test_a_diagnostic_task_cannot_train() -> None:
    task: Any = Task("ax", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"))

    with pytest.raises(DataError, match=r"nothing to train on(.|\n)*Train on glue/mnli"):
        resolve_schema(DatasetDict(test=Dataset.from_dict({"premise": ["a"]})), task=task)


def test_schema_survives_json() -> None:
    schema = resolve(["b|a", "a", "c"], label_separator="|")

    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_damaged_json_is_refused() -> None:
    stored = resolve(["a", "b"]).to_json()

    with pytest.raises(CheckpointError, match="wrong or missing label_names, problem_type, text"):
        Schema.from_json({**stored, "text": 3, "problem_type": ["x"], "label_names": [1]})
    with pytest.raises(CheckpointError, match="wrong or missing id"):
        Schema.from_json({key: value for key, value in stored.items() if key != "id"})
