"""Rows that stand twice: within a split, across splits, with their sides swapped, nearly, or with another label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from textune.audit.audited_rows import AuditedRows
from textune.audit.findings import Finding
from textune.problem_types import REGRESSION

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFLICT_SHARE = 0.1
"""Targets of equal texts that differ by more than this share of the training targets' range are in conflict."""


@dataclass(frozen=True)
class Grouping:
    """Which rows belong together.

    Attributes:
        groups: the number of each row's group, from 0.
        kind: of a finding within one split; `leaked_` stands before it for one across splits.
        wording: goes between "3 of 10 rows" and "an earlier row" or "a row of train".
    """

    groups: NDArray[np.int64]
    kind: str
    wording: str


def exact(rows: AuditedRows) -> Grouping:
    """Equal texts, but for Unicode form, case and blanks."""
    return Grouping(groups_of(rows.keys), "duplicates", "equal")


def swapped(rows: AuditedRows) -> Grouping:
    """Pairs of equal texts in either order."""
    return Grouping(groups_of(rows.unordered), "swapped_pairs", "have the texts, in the other order, of")


def nearly(rows: AuditedRows, groups: NDArray[np.int64]) -> Grouping:
    """Nearly equal texts; `groups` as `near_duplicates.near_groups` gives them, one for each of `groups_of`'s."""
    return Grouping(groups[groups_of(rows.unordered)], "near_duplicates", "are nearly equal to")


def groups_of(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def repeated(rows: AuditedRows, groupings: list[Grouping]) -> Iterator[Finding]:
    """Finds rows that stand together with an earlier one of their split, or with one of a split before it.

    Args:
        groupings: from fine to coarse; a row that is found by one is not told again by a coarser one.
    """
    for split in rows.names:
        told = np.zeros(len(rows), np.bool_)
        for grouping in groupings:
            yield from _matches(rows, grouping, split, split, told)
    for other, split in combinations(rows.names, 2):
        told = np.zeros(len(rows), np.bool_)
        for grouping in groupings:
            yield from _matches(rows, grouping, split, other, told)


def _matches(
    rows: AuditedRows, grouping: Grouping, split: str, other: str, told: NDArray[np.bool_]
) -> Iterator[Finding]:
    """Rows of `split` whose group has a row of `other`, an earlier one where it is the same split; marks them."""
    places = np.arange(len(rows), dtype=np.int64)
    here, there = places[rows.span(split)], places[rows.span(other)]
    first = np.full(int(grouping.groups.max()) + 1, -1, np.int64)
    first[grouping.groups[there[::-1]]] = there[::-1]  # the last one written is the first
    partners = first[grouping.groups[here]]
    found = (partners >= 0) & (partners != here) & ~told[here]
    chosen, partners = here[found], partners[found]
    told[chosen] = True
    if len(chosen) == 0:
        return
    labels = rows.labels[chosen], rows.labels[partners]
    differ = int((np.abs(labels[0] - labels[1]) > _tolerance(rows)).sum())
    target = "an earlier row" if split == other else f"a row of {other}"
    also = f"; {differ:,} of them with another label" if differ and grouping.kind != "duplicates" else ""
    yield rows.finding(
        grouping.kind if split == other else f"leaked_{grouping.kind}",
        split,
        chosen,
        f"{grouping.wording} {target}{also}",
        other_split=other,
        others=partners,
    )


def conflicts(rows: AuditedRows) -> Iterator[Finding]:
    """Rows whose text stands, in their own split or in one before it, also with another label."""
    groups, tolerance = groups_of(rows.keys), _tolerance(rows)
    lowest, highest = {}, {}
    for split in rows.names:
        span = rows.span(split)
        places = np.arange(span.start, span.stop)[~np.isnan(rows.labels[span])]
        by_label = places[np.argsort(rows.labels[places], kind="stable")]
        lowest[split] = np.full(int(groups.max()) + 1, -1, np.int64)
        highest[split] = lowest[split].copy()
        highest[split][groups[by_label]] = by_label
        lowest[split][groups[by_label[::-1]]] = by_label[::-1]
        for other in rows.names[: rows.names.index(split) + 1]:
            yield from _conflicts(
                rows, split, other, groups[places], places, (lowest[other], highest[other]), tolerance
            )


def _conflicts(
    rows: AuditedRows,
    split: str,
    other: str,
    groups: NDArray[np.int64],
    places: NDArray[np.int64],
    extremes: tuple[NDArray[np.int64], NDArray[np.int64]],
    tolerance: float,
) -> Iterator[Finding]:
    partners = np.full(len(places), -1, np.int64)
    for extreme in extremes:
        candidates = extreme[groups]
        apart = np.abs(rows.labels[candidates] - rows.labels[places]) > tolerance
        partners = np.where((candidates >= 0) & apart, candidates, partners)
    found = partners >= 0
    if found.any():
        target = "another row" if split == other else f"a row of {other}"
        label = f"a label more than {tolerance:g} apart" if tolerance else "another label"
        yield rows.finding(
            "conflicting_labels",
            split,
            places[found],
            f"have the same text as {target} with {label}",
            other_split=other,
            others=partners[found],
        )


def _tolerance(rows: AuditedRows) -> float:
    """How far labels may be apart and still be the same."""
    if rows.schema.problem_type != REGRESSION:
        return 0.0
    train = rows.labels[rows.span(rows.names[0])]
    return CONFLICT_SHARE * float(np.nanmax(train) - np.nanmin(train))
