from __future__ import annotations

import pytest

from textune.config import EVALUATE_OPTIONS, SHORT_NAMES
from textune.errors import ConfigError
from textune.options import full_names, require_known, resolve_options


def test_the_device_has_a_short_name() -> None:
    assert resolve_options(None, {"device": "cpu"}, {}).training.device == "cpu"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lr", " Did you mean 'learning_rate'?"),
        ("gradient_accumulation_steps", " Did you mean 'accumulation'?"),
        ("label_smoothing", " Did you mean settings={'training.label_smoothing': ...}?"),
        ("save_steps", " Did you mean settings={'checkpoint.every': ...}?"),
        ("learning_rat", " Did you mean 'learning_rate'?"),
        ("zzz", ""),
    ],
)
def test_an_unknown_option(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_options(None, {name: 1}, {})
    assert caught.value.problems == [f"There is no option {name!r}.{words}"]
    assert "settings={'training.adam_beta2': 0.98}" in str(caught.value.hint)


def test_settings_are_named_only_where_they_can_be_given() -> None:
    with pytest.raises(ConfigError) as caught:
        require_known(["label_smoothing"], known=EVALUATE_OPTIONS, help_for="textune.evaluate")
    assert caught.value.problems == ["There is no option 'label_smoothing'."]
    assert "settings" not in str(caught.value.hint)


def test_full_names() -> None:
    assert full_names("lr") == full_names("learning_rate") == ["training.learning_rate"]
    assert full_names("every") == ["evaluation.every", "checkpoint.every"]
    assert full_names("zzz") == []
    assert all(full_names(full.rpartition(".")[2]) for full in SHORT_NAMES.values())
