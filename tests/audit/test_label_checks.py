from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from textune.audit.audited_rows import collect
from textune.audit.findings import Audit
from textune.audit.label_checks import LabelTable, class_shift, target_shift
from textune.data.prepare import PreparedData

from .conftest import SENTENCES, named, the

AuditOf = Callable[..., Audit]


def labelled(*counts: tuple[Any, int]) -> list[dict[str, Any]]:
    """So many rows of each label, all texts different."""
    labels = [label for label, count in counts for _ in range(count)]
    return [{"text": f"{SENTENCES[at % 10]} {at:b}", "label": label} for at, label in enumerate(labels)]


def test_spellings_of_one_label(audit: AuditOf) -> None:
    rows = labelled(("spam", 20), ("Spam ", 2), ("ham", 20), ("SPAM", 1))
    found = the(audit({"train": rows}), "label_spelling")
    assert (found.severity, found.rows.tolist()) == ("error", [21, 22, 43])
    assert found.message.startswith(
        "3 of 43 train rows (7 %) have the label 'SPAM', 'Spam ', which 20 others write 'spam'"
    )


def test_one_label_for_most_rows(audit: AuditOf) -> None:
    found = the(audit({"train": labelled(("no", 85), ("yes", 15))}), "label_imbalance")
    assert found.message == (
        "85 of 100 train rows (85 %) have the label 'no', 15 the label 'yes'; "
        "always guessing the first is right in 85 %"
    )
    assert (found.count, found.rows.tolist()) == (85, [])


def test_one_label_of_ten_times_the_rows(audit: AuditOf) -> None:
    rows = labelled(("a", 120), ("b", 120), ("c", 12))
    assert "12 the label 'c'" in the(audit({"train": rows}), "label_imbalance").message
    assert named(audit({"train": labelled(("a", 100), ("b", 100), ("c", 12))}), "label_imbalance") == {}


def test_imbalance_names_another_label_where_all_others_are_rare(audit: AuditOf) -> None:
    found = the(audit({"train": labelled(("n", 90), ("p", 9), ("q", 1))}), "label_imbalance")
    assert found.message == (
        "90 of 100 train rows (90 %) have the label 'n', 9 the label 'p'; always guessing the first is right in 90 %"
    )


def test_labels_with_few_rows(audit: AuditOf) -> None:
    found = audit({"train": labelled(("a", 20), ("rare", 3), ("b", 20), ("single", 1))})
    rare = the(found, "rare_labels")
    assert rare.rows.tolist() == [21, 22, 23, 44]
    assert rare.message.endswith("have labels with fewer than 10 training rows: 'rare' (3), 'single' (1)")
    assert named(found, "label_imbalance") == {}, "rare labels are told once"


def test_labels_without_rows(audit: AuditOf) -> None:
    splits = {"train": labelled(("a", 20), ("b", 20), ("c", 20)), "validation": labelled(("a", 3), ("c", 3))}
    found = the(audit(splits), "absent_labels")
    assert (found.split, found.count, found.message) == ("validation", 0, "no row of validation has the label 'b'")
    named_labels = audit({"train": labelled((0, 20), (1, 20))}, label_names=("x", "y", "z"))
    assert the(named_labels, "absent_labels").message == "no row of train has the label 'z'"


def test_another_distribution_of_classes(audit: AuditOf) -> None:
    splits = {"train": labelled(("a", 150), ("b", 150)), "validation": labelled(("a", 75), ("b", 25))}
    found = the(audit(splits), "label_shift")
    assert (found.split, found.other_split) == ("validation", "train")
    assert found.message.endswith("than those of train: 'a' has 75 % of validation and 50 % of train")
    splits["validation"] = labelled(("a", 55), ("b", 45))
    assert named(audit(splits), "label_shift") == {}


def test_another_distribution_of_targets(audit: AuditOf) -> None:
    rng = np.random.default_rng(0)
    train, validation = rng.normal(size=300).tolist(), rng.normal(loc=1, size=100).tolist()
    splits = {
        "train": labelled(*((value, 1) for value in train)),
        "validation": labelled(*((value, 1) for value in validation)),
    }
    found = audit(splits)
    assert "the median target is" in the(found, "label_shift").message
    assert "label_imbalance" not in found.checked
    assert found.splits["train"]["targets"]["mean"] == pytest.approx(np.mean(train), abs=1e-4)


def test_several_labels_per_row(audit: AuditOf) -> None:
    rows = [{"text": f"{SENTENCES[at % 10]} {at:b}", "labels": ["x"] if at % 2 else ["x", "y"]} for at in range(40)]
    rows[0]["labels"] = ["x", "y", "z"]
    found = audit({"train": rows})
    assert found.splits["train"]["labels"] == {"x": 40, "y": 20, "z": 1}
    assert named(found, "rare_labels") == {"train": [1]}


def test_memory_does_not_grow_with_the_number_of_labels(prepare: Callable[..., PreparedData]) -> None:
    """A table of rows by labels would hold 4,000 x 1,000 bytes, before its copies for findings."""
    rows = labelled(*((f"label {number}", 4) for number in range(1000)))
    prepared = prepare({"train": rows, "validation": rows[::2]})
    audited = collect(prepared.rows, prepared.schema)
    tracemalloc.start()
    try:
        found = {finding.kind for finding in LabelTable(audited).findings()}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == {"rare_labels"}
    assert peak < 3e6


def test_class_shift_is_the_chi_square_test() -> None:
    rng = np.random.default_rng(1)
    for shares in ((0.5, 0.55), (0.1, 0.3), (0.02, 0.03)):
        first, second = (rng.random((size, 1)) < share for size, share in zip((400, 90), shares, strict=True))
        counts = [[part.sum(), (~part).sum()] for part in (first, second)]
        distance, p_value, label = class_shift(first.sum(axis=0), second.sum(axis=0), sizes=(400, 90))
        assert label == 0
        assert distance == pytest.approx(abs(first.mean() - second.mean()))
        assert p_value == pytest.approx(stats.chi2_contingency(counts).pvalue)


def test_class_shift_of_several_labels_is_corrected_for_their_number() -> None:
    rng = np.random.default_rng(2)
    shares = np.array([0.5, 0.2, 0.1]), np.array([0.5, 0.4, 0.1])
    sizes = (300, 100)
    first, second = (rng.binomial(size, share) for size, share in zip(sizes, shares, strict=True))
    _, alone, _ = class_shift(first[1:2], second[1:2], sizes=sizes)
    _, p_value, label = class_shift(first, second, sizes=sizes)
    assert label == 1
    assert p_value == pytest.approx(3 * alone)
    assert class_shift(np.array([300]), np.array([100]), sizes=sizes) == (0.0, 1.0, 0)


def test_target_shift_is_the_test_of_kolmogorov_and_smirnov() -> None:
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.2, 1.0):
        first, second = rng.normal(size=500).round(1), (rng.normal(size=300) + shift).round(1)
        expected = stats.ks_2samp(first, second, method="asymp")
        distance, p_value = target_shift(first, second)
        assert distance == pytest.approx(expected.statistic)
        assert p_value == pytest.approx(expected.pvalue, rel=0.25), "scipy adds a correction for small samples"


@pytest.mark.parametrize("labels", [None, "blank", "a"])
def test_texts_without_labels_that_differ_are_looked_at_all_the_same(audit: AuditOf, labels: str | None) -> None:
    rows = [{"text": text} for text in (*SENTENCES, SENTENCES[0])]
    if labels is not None:
        rows = [{**row, "label": "" if labels == "blank" else labels} for row in rows]
    found = audit({"train": rows})
    assert named(found, "duplicates") == {"train": [11]}
    (nothing,) = [finding for finding in found.findings if finding.kind == "nothing_to_learn"]
    assert nothing.message == ("train has no other label than 'a'" if labels == "a" else "no row of train has a label")
    assert found.splits["train"]["labelled"] is (labels == "a")
    assert {finding.kind for finding in found.findings} == {"duplicates", "nothing_to_learn"}


def test_targets_that_are_all_the_same(audit: AuditOf) -> None:
    rows = [{"text": text, "label": 2.5} for text in SENTENCES]
    assert the(audit({"train": rows}, problem_type="regression"), "nothing_to_learn").message.endswith("label than 2.5")
