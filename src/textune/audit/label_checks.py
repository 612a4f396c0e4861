"""How labels are spelled and distributed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from textune.audit.audited_rows import AuditedRows, normalised
from textune.audit.findings import Finding
from textune.audit.wording import count_of, percent
from textune.data.rows import labels_of
from textune.data.wording import listed, quoted
from textune.problem_types import MULTI_LABEL, SINGLE_LABEL

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW_ROWS = 10
"""A label with fewer training rows is rare."""
MAJORITY_SHARE, LARGEST_RATIO = 0.8, 10.0
"""Labels are out of balance where one has so many of the rows, or so many times those of another that is not rare."""
SHIFT_P_VALUE, SHIFT_DISTANCE = 0.001, 0.05
"""Distributions differ where chance would hardly do it and the difference matters: of a label's share of the rows, or
of the distribution functions of targets."""


class LabelTable:
    """The labels of all labelled splits: which rows have which.

    Attributes:
        names: of the labels; empty for regression.
        members: split -> class ids [rows], bool [rows, labels] where a row has several, or float targets [rows] for
            regression.
    """

    def __init__(self, rows: AuditedRows) -> None:
        self.rows = rows
        self.names = rows.schema.label_names
        self.members: dict[str, NDArray[Any]] = {}
        for split, dataset in rows.splits.items():
            labels = labels_of(dataset)
            if labels is None:
                continue
            self.members[split] = labels > 0 if rows.schema.problem_type == MULTI_LABEL else labels

    def counts(self, split: str) -> NDArray[np.int64]:
        """[labels] rows of the split that have each label."""
        members = self.members[split]
        single = self.rows.schema.problem_type == SINGLE_LABEL
        counts: NDArray[np.int64] = np.bincount(members, minlength=len(self.names)) if single else members.sum(axis=0)
        return counts

    def places(self, split: str, labels: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the rows of the split that have any of these labels stand in `rows`."""
        members = self.members[split]
        single = self.rows.schema.problem_type == SINGLE_LABEL
        have = np.isin(members, labels) if single else members[:, labels].any(axis=1)
        places: NDArray[np.int64] = np.flatnonzero(have) + self.rows.span(split).start
        return places

    def summary(self, split: str) -> dict[str, Any]:
        """For the audit's splits: counts by label name, or the targets' range, mean and standard deviation."""
        if split not in self.members:
            return {"labelled": False}
        if self.names:
            return {"labelled": True, "labels": dict(zip(self.names, self.counts(split).tolist(), strict=True))}
        targets = self.members[split].astype(np.float64)
        figures = {
            "lowest": targets.min(),
            "highest": targets.max(),
            "mean": targets.mean(),
            "deviation": targets.std(),
        }
        return {"labelled": True, "targets": {name: round(float(value), 6) for name, value in figures.items()}}

    def findings(self) -> Iterator[Finding]:
        """All that is to say of the labels."""
        train, *others = self.rows.names
        if (nothing := self._nothing_to_learn(train)) is not None:
            yield nothing
            return
        others = [name for name in others if name in self.members]
        if self.names:
            yield from self._spellings()
            yield from self._imbalance(train)
            yield from self._rare(train)
            for split in (train, *others):
                yield from self._absent(split)
        for split in others:
            yield from self._shift(train, split)

    def _nothing_to_learn(self, train: str) -> Finding | None:
        total = len(self.rows.splits[train])
        if train not in self.members:
            return Finding("nothing_to_learn", train, total, total, f"no row of {train} has a label")
        members = self.members[train]
        if self.rows.schema.problem_type == MULTI_LABEL:
            differ = members.shape[1] > 1
        else:
            differ = bool((members != members[0]).any())
        if differ:
            return None
        label = quoted(self.names[int(self.counts(train).argmax())]) if self.names else f"{members[0]:g}"
        return Finding("nothing_to_learn", train, total, total, f"{train} has no other label than {label}")

    def _spellings(self) -> Iterator[Finding]:
        alike: dict[str, list[int]] = {}
        for label, name in enumerate(self.names):
            alike.setdefault(normalised(name), []).append(label)
        for spellings in alike.values():
            for split in self.members if len(spellings) > 1 else ():
                counts = self.counts(split)
                common = max(spellings, key=counts.__getitem__)
                others = [label for label in spellings if label != common]
                places = self.places(split, others)
                if len(places):
                    names = listed([self.names[label] for label in others])
                    what = f"have the label {names}, which {counts[common]:,} others write {quoted(self.names[common])}"
                    yield self.rows.finding("label_spelling", split, places, what)

    def _imbalance(self, train: str) -> Iterator[Finding]:
        counts = self.counts(train)
        total = len(self.rows.splits[train])
        most = int(counts.argmax())
        others = [label for label in np.argsort(counts, kind="stable").tolist() if label != most]
        # Rare labels are told of themselves, so that the smallest that is not rare is named, where there is one.
        least = next((label for label in others if counts[label] >= FEW_ROWS), others[-1])
        single = self.rows.schema.problem_type == SINGLE_LABEL
        unequal = counts[least] >= FEW_ROWS and counts[most] >= LARGEST_RATIO * counts[least]
        if not unequal and not (single and counts[most] >= MAJORITY_SHARE * total):
            return
        message = (
            f"{count_of(int(counts[most]), total, train)} have the label {quoted(self.names[most])}, "
            f"{counts[least]:,} the label {quoted(self.names[least])}"
        )
        if single:
            message += f"; always guessing the first is right in {percent(counts[most] / total)}"
        yield Finding("label_imbalance", train, int(counts[most]), total, message)

    def _rare(self, train: str) -> Iterator[Finding]:
        counts = self.counts(train)
        rare = np.flatnonzero((counts > 0) & (counts < FEW_ROWS))
        if len(rare):
            shown = listed([self.names[label] for label in rare.tolist()], counts=counts[rare].tolist())
            what = f"have labels with fewer than {FEW_ROWS} training rows: {shown}"
            yield self.rows.finding("rare_labels", train, self.places(train, rare), what)

    def _absent(self, split: str) -> Iterator[Finding]:
        absent = [self.names[label] for label in np.flatnonzero(self.counts(split) == 0).tolist()]
        if absent:
            message = f"no row of {split} has the label {listed(absent)}"
            yield Finding("absent_labels", split, 0, len(self.rows.splits[split]), message)

    def _shift(self, train: str, split: str) -> Iterator[Finding]:
        size = len(self.rows.splits[split])
        if self.names:
            counts, sizes = [self.counts(name) for name in (train, split)], (len(self.rows.splits[train]), size)
            distance, p_value, most = class_shift(counts[0], counts[1], sizes=sizes)
            first, second = (having[most] / rows for having, rows in zip(counts, sizes, strict=True))
            shown = f"{quoted(self.names[most])} has {percent(second)} of {split} and {percent(first)} of {train}"
        else:
            distance, p_value = target_shift(self.members[train], self.members[split])
            first, second = (float(np.median(self.members[name])) for name in (train, split))
            shown = f"the median target is {second:g} in {split} and {first:g} in {train}"
        if p_value < SHIFT_P_VALUE and distance >= SHIFT_DISTANCE:
            message = f"labels of {split} are distributed otherwise than those of {train}: {shown}"
            yield Finding("label_shift", split, size, size, message, other_split=train)


def class_shift(
    first: NDArray[np.int64], second: NDArray[np.int64], *, sizes: tuple[int, int]
) -> tuple[float, float, int]:
    """Largest difference in a label's share of the rows, its p-value, and the label.

    Args:
        first, second: how many rows of two splits have each label, [labels].
        sizes: how many rows the splits have.

    The test is chi-square with Yates' correction on rows with and without the label; its p-value is multiplied by the
    number of labels (Bonferroni), so that single-label and multi-label data are treated alike.
    """
    from scipy.special import chdtrc  # scipy.stats would take a second to import

    most = int(np.abs(first / sizes[0] - second / sizes[1]).argmax())
    have = np.array([first[most], second[most]], np.float64)
    share = have.sum() / sum(sizes)
    distance = float(abs(have[0] / sizes[0] - have[1] / sizes[1]))
    expected = np.outer([share, 1 - share], sizes)
    if expected.min() == 0:
        return distance, 1.0, most
    gap = np.abs(have - expected[0])
    statistic = float((np.maximum(gap - 0.5, 0) ** 2 / expected).sum())
    return distance, min(1.0, float(chdtrc(1, statistic)) * len(first)), most


def target_shift(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Largest difference of two samples' distribution functions, and its asymptotic p-value (Kolmogorov, Smirnov)."""
    from scipy.special import kolmogorov

    both = np.concatenate([first, second])
    ranks = [np.searchsorted(np.sort(part), both, side="right") / len(part) for part in (first, second)]
    distance = float(np.abs(ranks[0] - ranks[1]).max())
    size = len(first) * len(second) / len(both)
    return distance, float(kolmogorov(distance * size**0.5))
