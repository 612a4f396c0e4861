from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from textune.config import Config
from textune.errors import ConfigError, DataError, InputNotFoundError, TextuneError
from textune.evaluation.prediction_files import Rivals, read_rivals
from textune.run import Run


def write(path: Path, **columns: Sequence[Any]) -> str:
    """Writes a table in the format that the file's name asks for."""
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        rows = [",".join("" if cell is None else str(cell) for cell in row.values()) for row in table.to_pylist()]
        path.write_text("\n".join([",".join(table.column_names), *rows]) + "\n")
    return str(path)


def make_run(
    folder: Path,
    *,
    labels: Sequence[Any] = "abab",
    names: Sequence[str] = ("a", "b"),
    problem_type: str = "single_label_classification",
    **splits: Any,
) -> str:
    """A finished run with these predictions of each split, as its files have them."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    run = Run.create(folder, overwrite=False, config=Config())
    schema = {
        "text": "text",
        "text_pair": None,
        "label": "label",
        "id": None,
        "label_separator": None,
        "label_names": list(names),
        "notes": [],
        "problem_type": problem_type,
    }
    run.write("data.json", {"schema": schema})
    summary: dict[str, Any] = {"selected": {"split": "validation"}, "training": {}}
    for split, predictions in splits.items():
        table = pa.table({"id": range(1, 5), "label": list(labels), "prediction": list(predictions)})
        run.write_predictions(split, table)
        summary[split] = {"f1": {"value": 0.5}, "accuracy": {"value": 0.5}, "loss": {"value": 1}, "num_rows": 4}
    run.write("summary.json", summary)
    return str(folder)


def predictions_of(rivals: Rivals) -> list[list[Any]]:
    return [candidate.outcomes[0].predictions.tolist() for candidate in rivals.candidates]


def test_runs(tmp_path: Path) -> None:
    first = make_run(tmp_path / "one", validation="abab", test="aaaa")
    second = make_run(tmp_path / "two", validation="bbbb", test="abbb")
    rivals = read_rivals([first, second])
    assert rivals.split == "test"
    assert [candidate.name for candidate in rivals.candidates] == ["one", "two"]
    assert predictions_of(rivals) == [[0, 0, 0, 0], [0, 1, 1, 1]]
    assert rivals.candidates[0].outcomes[0].labels.tolist() == [0, 1, 0, 1]
    assert rivals.metrics[:2] == ("f1", "accuracy"), "the task's own metrics first"
    validation = read_rivals([first, second], split="validation")
    assert predictions_of(validation) == [[0, 1, 0, 1], [1, 1, 1, 1]]


def test_validation_where_not_all_have_a_test_split(tmp_path: Path) -> None:
    first = make_run(tmp_path / "one", validation="abab", test="aaaa")
    second = make_run(tmp_path / "two", validation="bbbb")
    assert read_rivals([first, second]).split == "validation"


def test_no_split_that_all_have(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "one", validation="abab"), make_run(tmp_path / "two", test="aaaa")
    with pytest.raises(DataError, match="Expected a split that is scored in all of the runs") as caught:
        read_rivals([first, second])
    assert f"{first} has 'validation'; {second} has 'test'." in caught.value.message


@pytest.mark.parametrize("split", [None, "validation"])
def test_a_run_that_has_not_finished(tmp_path: Path, split: str | None) -> None:
    first, second = (make_run(tmp_path / name, validation="abab") for name in ("one", "two"))
    (Path(second) / "summary.json").unlink()
    with pytest.raises(InputNotFoundError, match=f"The run '{second}' has not finished") as caught:
        read_rivals([first, second], split=split)
    assert f"`textune train --resume {second}`" in str(caught.value.hint)


def test_folders_of_seeds_and_named_groups(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        make_run(tmp_path / "small" / f"seed-{seed}", validation="abab")
    (tmp_path / "small" / "seed-3" / "summary.json").unlink()
    others = [make_run(tmp_path / f"large-{number}", validation="bbbb") for number in (1, 2)]
    rivals = read_rivals([str(tmp_path / "small"), f"large={','.join(others)}"])
    assert [(candidate.name, len(candidate.outcomes)) for candidate in rivals.candidates] == [
        ("small", 2),
        ("large", 2),
    ]
    assert rivals.notes == (f"{tmp_path / 'small'}: left out, not finished: seed-3",)


def test_runs_that_have_learned_nothing_are_named(tmp_path: Path) -> None:
    for name in ("good", "small/seed-1", "small/seed-2"):
        make_run(tmp_path / name, validation="abab")
    folds = Path(make_run(tmp_path / "folds", out_of_fold="abab", validation="abab"))
    reason = "it says 'a' of every row"
    for path, changed in (
        (tmp_path / "small" / "seed-2", {"selected": {"split": "validation", "failed": reason}}),
        (folds, {"selected": {"split": "out_of_fold"}, "runs": [{"name": "fold-1", "failed": reason}]}),
    ):
        summary = json.loads((path / "summary.json").read_text())
        (path / "summary.json").write_text(json.dumps(summary | changed))
    rivals = read_rivals([str(tmp_path / name) for name in ("good", "small", "folds")], split="validation")
    assert rivals.notes == (
        f"small, seed-2 has learned nothing: on validation {reason}",
        f"folds, fold-1 has learned nothing: on out_of_fold {reason}",
    )


def test_runs_and_files_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / name, validation="abab")
    write(tmp_path / "other.csv", id=[1, 2, 3, 4], label=list("abab"), prediction=list("abab"))
    monkeypatch.setenv("HOME", str(tmp_path))
    rivals = read_rivals(["~/one", "both=~/one,~/two", "~/other.csv"])
    assert [(candidate.name, len(candidate.outcomes)) for candidate in rivals.candidates] == [
        ("one", 1),
        ("both", 2),
        ("other.csv", 1),
    ]


def test_a_group_that_is_longer_than_a_name_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [make_run(Path(f"{'long' * 10}-{number}"), validation="abab") for number in range(8)]
    rivals = read_rivals([f"group={','.join(names)}", names[0]])
    assert [len(candidate.outcomes) for candidate in rivals.candidates] == [8, 1]


@pytest.mark.parametrize("name", ["run", "predictions.csv", "group=run"])
def test_what_may_not_be_looked_at(
    tmp_path: Path, closed_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    first = make_run(tmp_path / "one", validation="abab")
    source = "=".join([*name.split("=")[:-1], str(closed_folder / name.split("=")[-1])])
    with pytest.raises(InputNotFoundError, match=r"Cannot read '.*closed/.*': Permission denied"):
        read_rivals([first, source])


def test_names_that_are_alike_keep_their_folders(tmp_path: Path) -> None:
    sources = [make_run(tmp_path / parent / "run", validation="abab") for parent in "xy"]
    assert [candidate.name for candidate in read_rivals(sources).candidates] == sources


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_files_in_another_order(tmp_path: Path, ending: str) -> None:
    run = make_run(tmp_path / "run", validation="aabb")
    file = write(tmp_path / f"other{ending}", id=[4, 3, 2, 1], label=list("baba"), prediction=list("aaab"))
    rivals = read_rivals([run, file])
    assert predictions_of(rivals) == [[0, 0, 1, 1], [1, 0, 0, 0]]
    assert rivals.notes == ("runs are compared on their validation split",)


def test_scores_in_place_of_predictions(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", validation="aabb")
    file = write(tmp_path / "s.csv", id=[1, 2, 3, 4], score_a=[0.9, 0.2, 0.1, 0.6], score_b=[0.1, 0.8, 0.9, 0.4])
    assert predictions_of(read_rivals([run, file]))[1] == [0, 1, 1, 0], "the run knows the labels"


SEVERAL: dict[str, Any] = {
    "labels": [["a", "b"], ["c"], [], ["a"]],
    "names": ("a", "b", "c"),
    "problem_type": "multi_label_classification",
}
SCORES_OF_SEVERAL = {"score_c": [0.1, 0.8, 0.3, 0.7], "score_a": [0.9, 0.1, 0.2, 0.6], "score_b": [0.5, 0.2, 0.1, 0.1]}
DECIDED_OF_SEVERAL = [[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]]


def test_scores_of_several_labels(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", **SEVERAL, validation=SEVERAL["labels"])
    file = write(tmp_path / "s.csv", id=[1, 2, 3, 4], **SCORES_OF_SEVERAL)
    assert predictions_of(read_rivals([run, file]))[1] == DECIDED_OF_SEVERAL, "as many labels as have at least one half"


def test_scores_of_several_labels_without_a_run(tmp_path: Path) -> None:
    first = write(tmp_path / "1.jsonl", id=[1, 2, 3, 4], label=SEVERAL["labels"], prediction=SEVERAL["labels"])
    second = write(tmp_path / "2.csv", id=[1, 2, 3, 4], **SCORES_OF_SEVERAL)
    rivals = read_rivals([first, second])
    assert rivals.label_set.names == ("c", "a", "b"), "the scores have them in this order"
    assert predictions_of(rivals)[1] == [[row[2], *row[:2]] for row in DECIDED_OF_SEVERAL]


def test_logits_of_several_labels(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", **SEVERAL, validation=SEVERAL["labels"])
    file = write(tmp_path / "s.csv", id=[1, 2, 3, 4], **{**SCORES_OF_SEVERAL, "score_a": [3.5, -2, 0.1, 1]})
    with pytest.raises(DataError, match=r"expected scores from 0 to 1, .* found 3\.5\."):
        read_rivals([run, file])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("a", "expected a column score_NAME for each label; there is none for 'b'."),
        ("abc", "the scored label 'c' is none of the labels 'a', 'b'."),
    ],
)
def test_scores_of_other_labels(tmp_path: Path, names: str, words: str) -> None:
    scores = {f"score_{name}": [0.1, 0.2, 0.3, 0.4] for name in names}
    file = write(tmp_path / "s.csv", **{"id": [1, 2, 3, 4], **scores})
    with pytest.raises(DataError) as caught:
        read_rivals([make_run(tmp_path / "run", validation="aabb"), file])
    assert words in caught.value.message


def test_scores_where_numbers_are_predicted(tmp_path: Path) -> None:
    first = write(tmp_path / "1.csv", id=[1, 2], label=[0.5, 2], prediction=[0.25, 1])
    second = write(tmp_path / "2.csv", id=[1, 2], score_a=[0.5, 2])
    with pytest.raises(DataError, match="expected a column 'prediction' with the numbers of a regression"):
        read_rivals([first, second])


def test_booleans_are_spelled_as_labels_are(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", labels=["false", "true"] * 2, names=("false", "true"), validation=["true"] * 4)
    file = write(tmp_path / "s.jsonl", id=[1, 2, 3, 4], label=[False, True] * 2, prediction=[True, True, False, False])
    assert predictions_of(read_rivals([run, file]))[1] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"label": [0, 1, 2, 0], "prediction": [1, 1, 2, 1]}, [1, 1, 2, 1]),
        ({"label": [1, 2, 3, 1], "prediction": [1, 1, 2, 1]}, [0, 0, 1, 0]),
        ({"prediction": [1, 1, 2, 1]}, [0, 0, 1, 0]),
        ({"prediction": [0, 1, 2, 1]}, [0, 1, 2, 1]),
        ({"label": [1, 2, 3, 1], "prediction": [0, 1, 2, 1]}, None),
    ],
)
def test_class_ids_or_names_that_are_numbers(
    tmp_path: Path, columns: dict[str, Any], expected: list[int] | None
) -> None:
    """A file has the one or the other throughout."""
    run = make_run(tmp_path / "run", labels="1231", names=("1", "2", "3"), validation="1111")
    file = write(tmp_path / "s.csv", **{"id": [1, 2, 3, 4], **columns})
    if expected is None:
        with pytest.raises(DataError, match="the prediction '0' is none of the labels '1', '2', '3'"):
            read_rivals([run, file])
    else:
        assert predictions_of(read_rivals([run, file]))[1] == expected


@pytest.mark.parametrize(
    "columns",
    [
        {"label": list("abab"), "prediction": [1, 1, 0, 0]},
        {"label": [0, 1, 0, 1], "prediction": list("bbaa")},
        {"score_0": [0.1, 0.2, 0.8, 0.9], "score_1": [0.9, 0.8, 0.2, 0.1]},
        {"label": [0, 1, 0, 1], "score_b": [0.9, 0.8, 0.2, 0.1], "score_a": [0.1, 0.2, 0.8, 0.9]},
    ],
)
def test_class_ids_beside_names(tmp_path: Path, columns: dict[str, Any]) -> None:
    run = make_run(tmp_path / "run", validation="aabb")
    file = write(tmp_path / "s.csv", **{"id": [1, 2, 3, 4], **columns})
    assert predictions_of(read_rivals([run, file]))[1] == [1, 1, 0, 0]


def test_class_ids_as_labels_of_scores_alone(tmp_path: Path) -> None:
    first = write(tmp_path / "1.csv", id=[1, 2], label=[0, 1], score_no=[0.6, 0.4], score_yes=[0.4, 0.6])
    second = write(tmp_path / "2.csv", id=[1, 2], label=[0, 1], prediction=["yes", "no"])
    third = write(tmp_path / "3.csv", id=[1, 2], label=["no", "yes"], prediction=[1, 1])
    rivals = read_rivals([first, second, third])
    assert rivals.label_set.names == ("no", "yes")
    assert rivals.candidates[0].outcomes[0].labels.tolist() == [0, 1]
    assert predictions_of(rivals) == [[0, 1], [1, 0], [1, 1]]


def test_class_ids_in_place_of_names(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", validation="aabb")
    file = write(tmp_path / "s.jsonl", id=[1, 2, 3, 4], label=[0, 1, 0, 1], prediction=[1, 1, 0, 0])
    assert predictions_of(read_rivals([run, file]))[1] == [1, 1, 0, 0]


def test_files_alone(tmp_path: Path) -> None:
    first = write(tmp_path / "1.csv", id=["x", "y"], label=["no", "yes"], prediction=["no", "no"])
    second = write(tmp_path / "2.csv", id=["x", "y"], label=["no", "yes"], score_yes=[0.6, 0.4], score_no=[0.4, 0.6])
    rivals = read_rivals([first, second])
    assert rivals.label_set.problem_type == "single_label_classification"
    assert rivals.label_set.names == ("yes", "no"), "the scores have them in this order"
    assert rivals.split is None
    assert predictions_of(rivals) == [[1, 1], [0, 1]]


def test_files_with_numbers(tmp_path: Path) -> None:
    first = write(tmp_path / "1.csv", id=[1, 2], label=[0.5, 2], prediction=[0.25, 1])
    second = write(tmp_path / "2.parquet", id=[1, 2], label=[0.5, 2.0], prediction=[1.0, 2.0])
    rivals = read_rivals([first, second])
    assert rivals.label_set.problem_type == "regression"
    assert predictions_of(rivals) == [[0.25, 1.0], [1.0, 2.0]]


def test_files_with_several_labels(tmp_path: Path) -> None:
    first = write(tmp_path / "1.jsonl", id=[1, 2], label=[["a", "b"], []], prediction=[["a"], []])
    second = write(tmp_path / "2.csv", id=[1, 2], label=["a|b", ""], prediction=["", "b"])
    rivals = read_rivals([first, second])
    assert rivals.label_set.names == ("a", "b")
    assert predictions_of(rivals) == [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]


def test_files_of_text_with_several_labels(tmp_path: Path) -> None:
    first = write(tmp_path / "1.csv", id=[1, 2, 3], label=["a|b", "b", ""], prediction=["a", "b", ""])
    second = write(tmp_path / "2.csv", id=[1, 2, 3], label=["a|b", "b", ""], prediction=["b|a", "", "b"])
    rivals = read_rivals([first, second])
    assert rivals.label_set.problem_type == "multi_label_classification"
    assert rivals.label_set.names == ("a", "b")
    assert predictions_of(rivals) == [[[1, 0], [0, 1], [0, 0]], [[1, 1], [0, 0], [0, 1]]]


def test_names_with_the_separator_are_single_labels(tmp_path: Path) -> None:
    labels = ["sport|golf", "sport|tennis", "music"]
    files = [write(tmp_path / name, id=[1, 2, 3], label=labels, prediction=labels) for name in ("1.csv", "2.csv")]
    rivals = read_rivals(files)
    assert rivals.label_set.problem_type == "single_label_classification"
    assert rivals.label_set.names == ("music", "sport|golf", "sport|tennis")


def test_predictions_out_of_fold_are_those_of_a_cross_validation(tmp_path: Path) -> None:
    sources = [make_run(tmp_path / name, out_of_fold="abab", test="aabb") for name in ("one", "two")]
    run = Run(sources[0])
    run.write("summary.json", run.summary | {"kind": "folds", "selected": {"split": "out_of_fold"}})
    for split, cross_validated in (("out_of_fold", [True, False]), ("test", [False, False])):
        candidates = read_rivals(sources, split=split).candidates
        assert [candidate.cross_validated for candidate in candidates] == cross_validated, split


def test_the_same_doubled_ids_in_the_same_order_are_the_same_rows(tmp_path: Path) -> None:
    files = [write(tmp_path / name, id=[1, 1], label=["a", "b"], prediction=["a", "a"]) for name in ("1.csv", "2.csv")]
    assert len(read_rivals(files).candidates) == 2


GOOD = {"id": [1, 2, 3, 4], "label": list("abab"), "prediction": list("aabb")}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": [1, 2, 3, 3]}, "other.csv: rows cannot be matched by their ids, some of which stand for several: '3'"),
        ({"id": [1, 2, 3, None]}, "other.csv: 1 of 4 rows have no id, first row 4"),
        ({"id": [1, 2, 3, 5]}, "1 ids of {run} are not in {other}: '4'"),
        ({"label": list("abaa")}, "are about different rows: 1 of 4 rows with the same id have different labels"),
        ({"prediction": ["a", "a", "b", None]}, "other.csv: 1 of 4 rows have no prediction, first row 4"),
        ({"prediction": ["a", "a", "b", "bb"]}, "the prediction 'bb' is none of the labels 'a', 'b'."),
        ({"prediction": [0, 1, 2, 0]}, "the prediction '0' is none of the labels 'a', 'b'."),
    ],
)
def test_rows_that_do_not_match(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    run = make_run(tmp_path / "run", validation="aabb")
    other = write(tmp_path / "other.csv", **{**GOOD, **columns})
    with pytest.raises(DataError) as caught:
        read_rivals([run, other])
    assert words.format(run=run, other=other) in caught.value.message


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"ID": [1], "label": ["a"], "prediction": ["a"]}, "Did you mean 'ID'?"),
        ({"id": [1], "label": ["a"], "predicted": ["a"]}, "Did you mean 'predicted'?"),
        ({"id": [1], "label": ["a"], "score_a": ["high"]}, "expected a number as 'score_a', found 'high'"),
        ({"id": [1], "label": ["a"], "score_a": ["nan"]}, "expected a number as 'score_a', found 'nan'"),
    ],
)
def test_columns_that_are_missing(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    other = write(tmp_path / "other.csv", **columns)
    with pytest.raises(DataError) as caught:
        read_rivals([make_run(tmp_path / "run", validation="aabb"), other])
    assert words in caught.value.message


def test_other_tasks(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", validation="aabb")
    other = make_run(tmp_path / "other", names=("a", "b", "c"), validation="aabb")
    with pytest.raises(DataError) as caught:
        read_rivals([run, other])
    assert "Runs of different tasks cannot be compared" in caught.value.message
    assert "has 'a', 'b', 'c'" in caught.value.message


def test_runs_on_other_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", validation="aabb")
    other = make_run(tmp_path / "other", labels="bbaa", validation="aabb")
    with pytest.raises(DataError, match="are about different rows: 2 of 4 rows"):
        read_rivals([run, other])


def test_files_without_labels(tmp_path: Path) -> None:
    files = [write(tmp_path / name, id=[1], prediction=["a"]) for name in ("1.csv", "2.csv")]
    with pytest.raises(DataError, match="None of the files has a column 'label'"):
        read_rivals(files)


def test_what_is_not_there(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", validation="aabb")
    cases: list[tuple[list[str], str | None, type[TextuneError], str]] = [
        ([run], None, ConfigError, "expected two or more"),
        ([run, run], None, ConfigError, "is named twice"),
        ([run, str(tmp_path / "none")], None, InputNotFoundError, "There is no run folder"),
        ([run, make_run(tmp_path / "two", validation="aabb")], "tset", InputNotFoundError, "no predictions for 'tset'"),
        (
            [run, write(tmp_path / "other.csv", **GOOD).replace(".csv", ".txt")],
            None,
            InputNotFoundError,
            "no run folder",
        ),
    ]
    for sources, split, error, words in cases:
        with pytest.raises(error) as caught:
            read_rivals(sources, split=split)
        assert words in caught.value.message
    (tmp_path / "notes.pdf").write_text("x")
    with pytest.raises(DataError, match=r"expected a file that ends in \.csv"):
        read_rivals([run, str(tmp_path / "notes.pdf")])
