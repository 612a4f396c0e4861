from __future__ import annotations

from textune.summary import metric_entries, metric_values, scored_splits

SUMMARY = {
    "task": {"labels": 2},
    "training": {"seconds": 1.0, "steps": 3},
    "selected": {"metric": "f1", "value": 0.5},
    "validation": {
        "num_rows": 10,
        "positive_label": "yes",
        "accuracy": {"value": 0.5, "interval": [0.2, 0.8]},
        "f1": {"value": None, "undefined": "nothing is yes"},
        "labels": {"yes": {"rows": 3}},
    },
    "test": {"num_rows": 4, "loss": {"value": 0.7}},
}


def test_what_is_a_split_and_what_a_metric() -> None:
    assert scored_splits(SUMMARY) == ["validation", "test"]
    assert list(metric_entries(SUMMARY["validation"])) == ["accuracy", "f1"]
    assert metric_values(SUMMARY["validation"]) == {"accuracy": 0.5, "f1": None}
    assert metric_values(SUMMARY["test"]) == {"loss": 0.7}
