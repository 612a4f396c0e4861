from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textune.config import FOREIGN_NAMES, SHORT_NAMES, Config, flag_of
from textune.config_reading import (
    explanations,
    option_fields,
    parse_assignment,
    read_config,
    to_dict,
    to_yaml,
)
from textune.errors import ConfigError, InputNotFoundError


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(options: dict[str, Any] | None = None, *, path: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_config(path, options)
    return caught.value.problems


def test_nothing_given_is_the_defaults() -> None:
    assert read_config() == Config()
    training = read_config().training
    assert (training.batch_size, training.learning_rate, training.duration, training.seed) == (8, 5e-5, "3epochs", 42)
    assert (training.schedule, training.warmup, training.max_grad_norm) == ("linear", "0steps", 1.0)


def test_a_setting_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    path = write(tmp_path, "training:\n  batch_size: 16\n  seed: 1\n")
    training = read_config(path, {"training.seed": 2}).training
    assert (training.batch_size, training.seed, training.learning_rate) == (16, 2, 5e-5)


def test_a_file_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "training:\n  seed: 7\n")
    assert read_config("~/config.yaml").training.seed == 7


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "trainning:\n  seed: 1\nmodel: 3\ntraining:\n  lerning_rate: 1\n  batch_size: 0\n")
    found = problems({"training.schedule": "cubic", "training.duration": "3 weeks", "data.drop_bad_rows": 3}, path=path)
    assert len(found) == 7
    assert found[0].startswith(f"{path}: there is no section 'trainning'. Did you mean 'training'?")
    assert found[1] == f"{path}: expected options under `model:`, found 3."
    assert found[2] == "There is no option 'training.lerning_rate'. Did you mean 'training.learning_rate'?"
    assert found[3] == "--batch-size (training.batch_size): expected a whole number at least 1, found 0."
    assert found[4] == "--schedule (training.schedule): expected 'linear' or 'cosine' or 'constant', found 'cubic'."
    assert found[5].startswith("--duration (training.duration): expected a number with its unit")
    assert found[6] == "--drop-bad-rows (data.drop_bad_rows): expected true or false, found 3."


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("training.lerning_rate", "training.learning_rate"),
        ("learning_rate", "training.learning_rate"),
        ("model.learning_rate", "training.learning_rate"),
        ("tokens.maxlength", "tokens.max_length"),
        ("evaluation.evry", "evaluation.every"),
        ("checkpoint.evry", "checkpoint.every"),
        ("training.lr", "training.learning_rate"),
        ("bs", "training.batch_size"),
        ("training.num_train_epochs", "training.duration"),
        ("training.max_seq_length", "tokens.max_length"),
    ],
)
def test_a_wrong_name_brings_the_nearest_one(name: str, meant: str) -> None:
    assert problems({name: 1}) == [f"There is no option {name!r}. Did you mean {meant!r}?"]


def test_a_name_like_no_other_brings_none() -> None:
    assert problems({"zzz": 1}) == ["There is no option 'zzz'."]
    assert problems({"training.zzz": 1}) == ["There is no option 'training.zzz'."], "the section alone is no likeness"


def test_names_of_other_tools_lead_to_options_that_exist() -> None:
    assert set(FOREIGN_NAMES.values()) <= set(option_fields())
    assert not FOREIGN_NAMES.keys() & {name.rpartition(".")[2] for name in option_fields()}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("training.learning_rate", "5e-5", 5e-5),
        ("training.learning_rate", 1, 1.0),
        ("training.learning_rate", np.float32(0.5), 0.5),
        ("training.batch_size", "16", 16),
        ("training.batch_size", 16.0, 16),
        ("training.batch_size", np.int64(16), 16),
        ("training.seed", 2**63 - 1, 2**63 - 1),
        ("tokens.max_length", None, None),
        ("tokens.max_length", 128, 128),
        ("data.drop_bad_rows", "True", True),
        ("data.drop_bad_rows", False, False),
        ("data.label", 1, "1"),
        ("data.label_names", "no, yes", ("no", "yes")),
        ("data.label_names", ["no", "yes"], ("no", "yes")),
        ("data.label_names", [0, 1], ("0", "1")),
        ("model.freeze", 2, "2"),
        ("run.output", Path("runs") / "first", str(Path("runs") / "first")),
        ("training.class_weights", "1, 2.5", "1, 2.5"),
    ],
)
def test_values_are_converted(name: str, value: Any, expected: Any) -> None:
    section, key = name.split(".")
    found = getattr(getattr(read_config(settings={name: value}), section), key)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("training.learning_rate", 0, "expected a number more than 0, found 0"),
        ("training.learning_rate", "fast", "expected a number, found 'fast'"),
        ("training.learning_rate", float("nan"), "expected a number, found nan"),
        ("training.learning_rate", float("inf"), "expected a number, found inf"),
        ("training.learning_rate", True, "expected a number, found True"),
        ("training.learning_rate", None, "expected a number, found None"),
        ("training.learning_rate", [1], "expected a number, found [1]"),
        ("training.batch_size", 2.5, "expected a whole number, found 2.5"),
        ("training.batch_size", "2.5", "expected a whole number, found '2.5'"),
        ("training.batching", "lenght", "expected 'shuffle' or 'length', found 'lenght'. Did you mean 'length'?"),
        ("training.tokens_per_batch", 0, "expected a whole number at least 1, found 0"),
        ("training.batch_size", 10**400, "expected a whole number, found 1000"),
        ("training.learning_rate", 10**400, "expected a number, found 1000"),
        ("training.seed", -1, "expected a whole number at least 0, found -1"),
        ("training.adam_beta1", 1, "expected a number less than 1, found 1"),
        ("training.layer_decay", 1.5, "expected a number at most 1, found 1.5"),
        ("tokens.max_length", 3, "expected a whole number at least 4, found 3"),
        ("data.validation_fraction", 1.0, "expected a number less than 1, found 1.0"),
        ("data.label", False, "expected a text, found False; YAML reads yes, no, on and off so unless they are quoted"),
        ("data.label", {"a": 1}, "expected a text, found {'a': 1}"),
        ("data.source", ["long"] * 1000, "expected a text, found ['long', 'long', "),
        ("data.source", None, "expected a text, found None"),
        ("data.label_names", [False, True], "expected a text, found False; YAML reads"),
        ("data.label_names", ["a", None], "expected a text, found None"),
        ("data.label_names", [], "expected a list, as [a, b] or a,b, found []"),
        ("data.label_names", 3, "expected a list, as [a, b] or a,b, found 3"),
        ("evaluation.every", "101%", "expected at most 100%, found '101%'"),
        ("training.precision", "fp8", "expected 'auto' or 'fp32' or 'bf16' or 'fp16', found 'fp8'"),
    ],
)
def test_values_that_do_not_fit_are_refused(name: str, value: Any, message: str) -> None:
    (problem,) = problems({name: value})
    assert problem.startswith(f"{flag_of(name)}: {message}")
    assert len(problem) < 500


def test_messages_name_the_flag_that_was_typed_and_the_option() -> None:
    assert flag_of("training.learning_rate") == "--learning-rate (training.learning_rate)"
    assert flag_of("run.trackers") == "--tracker (run.trackers)"
    assert flag_of("training.adam_beta1") == "training.adam_beta1", "it has no flag"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens.pad_to_max_length": True}, "tokens.pad_to_max_length needs --max-length"),
        ({"training.duration": "10%"}, "--duration (training.duration): expected epochs, steps or"),
        ({"training.duration": "0epochs"}, "--duration (training.duration): expected epochs, steps or"),
        ({"model.freeze": "head"}, "model.freeze: expected 'embeddings', 'encoder' or a number of layers"),
        ({"model.freeze": "-1"}, "model.freeze: expected 'embeddings', 'encoder' or a number of layers"),
        ({"training.class_weights": "even"}, "--class-weights (training.class_weights): expected 'balanced' or"),
        ({"training.class_weights": "1,-1"}, "--class-weights (training.class_weights): expected 'balanced' or"),
        ({"training.class_weights": "0,0"}, "--class-weights (training.class_weights): expected 'balanced' or"),
        ({"training.class_weights": "1,nan"}, "--class-weights (training.class_weights): expected 'balanced' or"),
        (
            {"training.label_smoothing": 0.1, "data.problem_type": "regression"},
            "training.label_smoothing works with single labels only, not with regression",
        ),
    ],
)
def test_options_are_checked_together(options: dict[str, Any], message: str) -> None:
    (problem,) = problems(options)
    assert problem.startswith(message)


def test_mistakes_across_options_are_told_at_once_too() -> None:
    assert len(problems({"model.freeze": "head", "training.duration": "0steps", "training.class_weights": "x"})) == 3


def test_every_option_is_explained() -> None:
    assert set(explanations()) == set(option_fields())
    for name, text in explanations().items():
        assert text.strip() == text, name
        assert "\n" not in text, name
        assert text.endswith("."), name


def test_every_short_name_is_an_option_and_none_twice() -> None:
    assert set(SHORT_NAMES.values()) <= set(option_fields())
    assert len(set(SHORT_NAMES.values())) == len(SHORT_NAMES)


def test_the_explained_file_names_every_option_once_below_its_meaning() -> None:
    lines = to_yaml(Config(), explained=True).splitlines()
    for name, text in explanations().items():
        key = name.partition(".")[2]
        above = lines.index(f"  # {text}")
        assert lines[above + 1].startswith(f"  {key}: "), name


# Words YAML would read as something else, and whatever characters a file can hold.
ODD_TEXTS = ("no", "null", "~", "1", "5e-5", "2020-01-01", "- a", "#", "a: b", "", " ", "a\nb", "\x85", "word " * 300)
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]))
DURATIONS = st.builds("{}{}".format, st.integers(0, 10**6), st.sampled_from(["steps", "epochs", "examples"]))


def texts_of(kind: Any) -> st.SearchStrategy[str]:
    """One of the texts that a `Literal` names, or any text."""
    return st.sampled_from(kind.__args__) if "Literal" in str(kind) else TEXTS


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Valid values of one option, by its type and bounds."""
    field, kind = option_fields()[name]
    bounds = field.metadata
    options = getattr(kind, "__args__", (kind,))
    if "duration" in bounds:
        return DURATIONS
    if bool in options:
        return st.booleans()
    if int in options:
        strategy: st.SearchStrategy[Any] = st.integers(bounds.get("low", 0), bounds.get("high", 10**9))
    elif float in options:
        low, high = bounds.get("low", bounds.get("above")), bounds.get("high", bounds.get("below"))
        strategy = st.floats(
            low, high if high is not None else 1e6, exclude_min="above" in bounds, exclude_max="below" in bounds
        )
    elif "tuple" in str(kind):
        (item, *_) = next(option for option in options if "tuple" in str(option)).__args__
        strategy = st.lists(texts_of(item), min_size=1, max_size=4).map(tuple)
    else:
        strategy = texts_of(next((option for option in options if "Literal" in str(option)), kind))
    return strategy if type(None) not in options else st.none() | strategy


# Options that `read_config` checks together with others keep their defaults.
FREE = [
    name
    for name in option_fields()
    if name
    not in {
        *("training.duration", "training.class_weights", "training.label_smoothing", "model.freeze"),
        *("data.folds", "data.fold", "run.seeds", "evaluation.patience"),
        *("tokens.pad_to_max_length", "training.log_every", "evaluation.every", "checkpoint.every"),
    }
]


@given(data=st.data(), names=st.lists(st.sampled_from(FREE), unique=True, max_size=8), explained=st.booleans())
def test_yaml_is_read_back_as_it_was(data: st.DataObject, names: list[str], explained: bool) -> None:
    options = {name: data.draw(values_of(name), label=name) for name in names}
    config = read_config(settings=options)
    for name, value in options.items():
        section, key = name.split(".")
        assert getattr(getattr(config, section), key) == value

    with tempfile.TemporaryDirectory() as folder:
        assert read_config(write(Path(folder), to_yaml(config, explained=explained))) == config


def test_the_dictionary_holds_plain_values_in_order() -> None:
    values = to_dict(read_config(settings={"data.label_names": "no,yes"}))
    assert list(values) == [field.name for field in dataclasses.fields(Config)]
    assert values["data"]["label_names"] == ["no", "yes"]
    assert values["training"]["learning_rate"] == 5e-5


@pytest.mark.parametrize("text", ["", "# nothing\n", "training:\n", "---\n", "\ufefftraining: {seed: 42}\n"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    assert read_config(write(tmp_path, text)) == Config()


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"There is no configuration file '.*none\.yaml'"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(InputNotFoundError, match=r"Cannot read the configuration '.*': Is a directory"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {seed: 1", "expected YAML; it cannot be read: "),
        ("training:\n\tseed: 1\n", "expected YAML; it cannot be read: "),
        ("- 1\n- 2\n", "expected sections such as `training:`, found a list"),
        ("just words", "expected sections such as `training:`, found a str"),
        ("training: &x {seed: 1}\nmodel: *x\n", "YAML aliases (*name) are not allowed in a configuration"),
        ("training: {seed: 1}\ntraining: {batch_size: 4}\n", "'training' is given twice"),
        ("training:\n  seed: 1\n  seed: 2\n", "'seed' is given twice"),
        (
            "training: {seed: !!python/object/apply:os.getpid []}",
            "YAML tags (tag:yaml.org,2002:python/object/apply:os.getpid) are not allowed",
        ),
        ("a\x00b", "special characters are not allowed"),
        ("--- 1\n--- 2\n", "expected a single document"),
        ("? [a]\n: 1\n", "unhashable key"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    (problem,) = problems(path=path)
    assert problem.startswith(f"{path}: ")
    assert message in problem


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"data:\n  label: caf\xe9\n")
    (problem,) = problems(path=path)
    assert "'utf-8' codec can't decode byte 0xe9" in problem


def test_a_file_beyond_a_mebibyte_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path, "#" * (2**20 + 1))
    assert problems(path=path) == [f"{path}: expected a configuration of at most 1 MiB; this file is larger."]


@pytest.mark.parametrize("bracket", ["[", "{", "- "])
def test_deep_nesting_is_refused_at_once(tmp_path: Path, bracket: str) -> None:
    """Scanning the whole file first took time that grew with the square of its depth: minutes for this one."""
    path = write(tmp_path, bracket * (2**19))
    begin = time.process_time()
    (problem,) = problems(path=path)
    assert "expected YAML; it cannot be read: maximum recursion depth exceeded" in problem
    assert time.process_time() - begin < 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.seed=1", ("training.seed", "1")),
        ("data.label=007", ("data.label", "007")),
        ("data.label='12:30'", ("data.label", "12:30")),
        ("data.label_names=[no, 'yes']", ("data.label_names", [False, "yes"])),
        ("data.source= a=b ", ("data.source", "a=b")),
        (" run.output =x", ("run.output", "x")),
        ("tokens.max_length=null", ("tokens.max_length", None)),
        ("data.source=", ("data.source", None)),
        ("data.source=[a", ("data.source", "[a")),
    ],
)
def test_assignments_are_split_at_the_first_equals_sign(text: str, expected: tuple[str, Any]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["training.seed", "=1", " =1", ""])
def test_an_assignment_without_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--set: expected NAME=VALUE, as training\.seed=1, found"):
        parse_assignment(text)


def test_mistakes_that_a_type_does_not_show_are_reported_with_the_others() -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(settings={"training.schedule": "liner", "model.freeze": "foo", "evaluation.every": "0steps"})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "--schedule (training.schedule)",
        "--evaluate-every (evaluation.every)",
        "model.freeze",
    ]
