"""Groups of nearly equal texts: MinHash (Broder 1997) finds candidates, exact Jaccard similarity decides.

Texts are compared by the sets of their character shingles, so that no language needs words. A signature of
`BANDS * ROWS_PER_BAND` minima is cut into bands; texts that agree in a whole band are candidates (Leskovec, Rajaraman,
Ullman: Mining of Massive Datasets, 3.4). A pair of similarity s becomes one with probability
1 - (1 - s^ROWS_PER_BAND)^BANDS: 0.998 at 0.8, more above. Everything is seeded: the same texts give the same groups.

Texts that share a long footer are all candidates of each other, and almost similar enough. So that the work stays in
proportion to the texts, each has only so many exact comparisons in vain (`PATIENCE`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIMILARITY = 0.8
"""Texts at least so similar (Jaccard) are nearly equal."""
BANDS, ROWS_PER_BAND = 20, 6
NUM_HASHES = BANDS * ROWS_PER_BAND
SHORT_WIDTH, LONG_WIDTH, LONG_TEXT = 4, 8, 500
"""Characters in a shingle, the second where the median text has more than `LONG_TEXT` characters: in long texts short
shingles are common to all."""
NEIGHBOURS = 32
"""Of many texts that agree in a band each is compared with so many next ones; groups grow together over them."""
PATIENCE = 32
"""After so many comparisons in vain a text is compared only where signatures agree more than in any of these."""
# Candidates whose signatures agree less than this are not looked at: 3.3 standard deviations below `SIMILARITY`.
_LOWEST_ESTIMATE = 0.68
_BATCH_SHINGLES = 2**16
_BATCH_PAIRS = 2**13


class TextStore:
    """Texts on disk with random access, memory-mapped: `add` them in order, then `close`, then `take`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schema = pa.schema([("text", pa.large_string())])
        self._writer = pa.ipc.new_file(str(path), self._schema)
        self._sizes: list[int] = []

    def add(self, texts: Sequence[str]) -> None:
        self._writer.write_batch(pa.record_batch([pa.array(texts, pa.large_string())], schema=self._schema))
        self._sizes.append(len(texts))

    def close(self) -> None:
        """Ends the writing."""
        self._writer.close()
        self._starts = np.cumsum([0, *self._sizes])
        reader = pa.ipc.open_file(pa.memory_map(str(self._path)))
        self._batches = [reader.get_batch(number).column(0) for number in range(reader.num_record_batches)]

    def take(self, places: NDArray[np.int64]) -> list[str]:
        """The texts at these places, which ascend."""
        bounds = np.searchsorted(places, self._starts)
        texts: list[str] = []
        for batch, start, low, high in zip(self._batches, self._starts, bounds, bounds[1:], strict=False):
            if low < high:
                texts += batch.take(pa.array(places[low:high] - start)).to_pylist()
        return texts


def near_groups(
    store: TextStore, places: NDArray[np.int64], characters: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int, int]:
    """Puts different texts into groups of nearly equal ones.

    Args:
        store: the texts.
        places: [n] of the texts to compare in it, ascending; all different.
        characters: [n] their lengths.

    Returns:
        [n] the number of each text's group (texts are in one group when they are nearly equal, or each to a third
        one); the width of the shingles; and how many texts ran out of patience (`PATIENCE`).
    """
    width = LONG_WIDTH if np.median(characters) > LONG_TEXT else SHORT_WIDTH
    sketches = _Sketches(store, places, characters, width=width)
    groups = np.arange(len(places), dtype=np.int64)
    comparable = np.flatnonzero(sketches.num_shingles)
    for band in range(BANDS):
        order, line = _lined_up(sketches.bands[comparable, band])
        order = comparable[order]
        # A place in the line says all that a later band asks of this one: so no memory is needed for both.
        sketches.bands[order, band] = line
        for left, right in _candidates(order, line):
            apart = groups[left] != groups[right]
            left, right = left[apart], right[apart]
            new = ~_are_neighbours(sketches.bands[left, :band], sketches.bands[right, :band]).any(axis=1)
            left, right = left[new], right[new]
            alike = sketches.alike(left, right)
            groups = _united(groups, left[alike], right[alike])
    return groups, width, int((sketches.failures >= PATIENCE).sum())


class _Sketches:
    """What is kept of every text: how many shingles it has, a hash per band (`bands`; once its candidates have been
    compared, the place in the line of texts), 8 bits of every minimum, how many of its comparisons were in vain
    (`failures`), and the highest estimate among these."""

    def __init__(
        self, store: TextStore, places: NDArray[np.int64], characters: NDArray[np.int64], *, width: int
    ) -> None:
        self._store, self._places, self._width = store, places, width
        random = np.random.Generator(np.random.PCG64(0))
        self._multipliers = random.integers(0, 2**31, NUM_HASHES, np.uint32) * np.uint32(2) + np.uint32(1)
        self._masks = random.integers(0, 2**32, NUM_HASHES, np.uint32)
        self.bands = np.empty((len(places), BANDS), np.uint32)
        self._bytes = np.empty((len(places), NUM_HASHES), np.uint8)
        self.num_shingles = np.empty(len(places), np.int64)
        self.failures = np.zeros(len(places), np.uint16)
        self._highest_in_vain = np.zeros(len(places), np.float32)
        for span in _batches(characters):
            self._fill(span)

    def _fill(self, span: slice) -> None:
        texts = self._store.take(self._places[span])
        minima, self.num_shingles[span] = self._minima(texts)
        self._bytes[span] = minima.astype(np.uint8)
        combined = np.zeros((len(texts), BANDS), np.uint64)
        for part in np.moveaxis(minima.reshape(len(texts), BANDS, ROWS_PER_BAND), 2, 0):
            combined = _mixed(combined ^ part)
        self.bands[span] = combined >> np.uint64(32)

    def _minima(self, texts: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The signatures [texts, NUM_HASHES], and how many shingles each text has; those without any are not filled."""
        shingles, counts = hashed_shingles(texts, self._width)
        minima = np.zeros((len(texts), NUM_HASHES), np.uint32)
        if len(shingles):
            filled = counts > 0
            starts = (np.cumsum(counts) - counts)[filled]
            high = (shingles >> np.uint64(32)).astype(np.uint32)
            buffer = np.empty_like(high)
            for number, (multiplier, mask) in enumerate(zip(self._multipliers, self._masks, strict=True)):
                np.bitwise_xor(high, mask, out=buffer)
                np.multiply(buffer, multiplier, out=buffer)
                minima[filled, number] = np.minimum.reduceat(buffer, starts)
        return minima, counts

    def alike(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these pairs of texts are nearly equal, exactly."""
        result = np.zeros(len(left), np.bool_)
        for start in range(0, len(left), _BATCH_PAIRS):
            span = slice(start, start + _BATCH_PAIRS)
            estimate = (self._bytes[left[span]] == self._bytes[right[span]]).mean(axis=1, dtype=np.float32)
            bound = np.maximum(self._bound(left[span]), self._bound(right[span]))
            likely = np.flatnonzero(estimate > bound) + start
            similar = self._similarities(left[likely], right[likely]) >= SIMILARITY
            result[likely] = similar
            in_vain = likely[~similar]
            for texts in (left[in_vain], right[in_vain]):
                np.add.at(self.failures, texts, 1)
                np.maximum.at(self._highest_in_vain, texts, estimate[in_vain - start])
        return result

    def _similarities(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        parts = [np.zeros(0)]
        for span in _batches(self.num_shingles[left] + self.num_shingles[right]):
            places, ends = np.unique(np.concatenate([left[span], right[span]]), return_inverse=True)
            texts = self._store.take(self._places[places])
            first, second = ([texts[place] for place in side] for side in ends.reshape(2, -1).tolist())
            parts.append(jaccard(first, second, self._width))
        return np.concatenate(parts)

    def _bound(self, texts: NDArray[np.int64]) -> NDArray[np.float32]:
        """What an estimate must exceed to be followed by an exact comparison."""
        patient = self.failures[texts] < PATIENCE
        return np.where(patient, np.float32(_LOWEST_ESTIMATE), self._highest_in_vain[texts])


def _batches(sizes: NDArray[np.int64]) -> Iterator[slice]:
    """Batches of about as many shingles as the processor's cache has room for."""
    if len(sizes):
        batch = (np.cumsum(sizes) // _BATCH_SHINGLES).astype(np.int64)
        bounds = [0, *(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(sizes)]
        yield from (slice(start, stop) for start, stop in pairwise(bounds))


def hashed_shingles(texts: Sequence[str], width: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of all shingles of all texts, one behind the other with repeats, and how many there are of each text."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    counts = np.maximum(lengths - width + 1, 0)
    characters = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64)
    num_windows = max(len(characters) - width + 1, 0)
    windows = np.zeros(num_windows, np.uint64)
    for offset in range(width):
        windows *= np.uint64(0x100000001B3)
        windows += characters[offset : offset + num_windows]
    ends = np.repeat(np.cumsum(lengths), lengths)[:num_windows]
    inside = ends - np.arange(num_windows) >= width
    return _mixed(windows[inside]), counts


def jaccard(first: Sequence[str], second: Sequence[str], width: int) -> NDArray[np.float64]:
    """How similar the texts side by side are, up to 2^14 pairs: different shingles that both have over all they have.

    Returns:
        [pairs] 1.0 for equal sets of shingles, 0.0 for sets without a common member or for empty ones.
    """
    hashes, counts = hashed_shingles([*first, *second], width)
    ends = np.arange(len(counts), dtype=np.uint64)
    pair, side = ends % np.uint64(len(first)), ends // np.uint64(len(first))
    # The pair, 49 bits of the hash, the side: so a shingle of both sides is two numbers, of which the second is odd.
    shingles = np.repeat(pair << np.uint64(50) | side, counts) | hashes >> np.uint64(15) << np.uint64(1)
    shingles.sort()
    shingles = np.delete(shingles, np.flatnonzero(shingles[1:] == shingles[:-1]))
    pair = (shingles >> np.uint64(50)).astype(np.int64)
    in_both = (shingles[1:] ^ shingles[:-1]) == 1
    shared = np.bincount(pair[1:][in_both], minlength=len(first))
    similarities: NDArray[np.float64] = shared / np.maximum(np.bincount(pair, minlength=len(first)) - shared, 1)
    return similarities


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _lined_up(hashes: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Puts texts in a line, those with the same hash side by side, and others more than `NEIGHBOURS` apart.

    Returns:
        the texts in this order, and their places in the line; both [texts].
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    step = np.where(ordered[1:] == ordered[:-1], np.uint32(1), np.uint32(NEIGHBOURS + 1))
    line = np.zeros(len(order), np.uint32)
    np.cumsum(step, dtype=np.uint32, out=line[1:])
    return order, line


def _are_neighbours(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether the places of two texts in a line are at most `NEIGHBOURS` apart: then they have the same hash."""
    # In unsigned numbers, -1 is the largest one: this is |left - right| <= NEIGHBOURS without an array of signed ones.
    return left - right + np.uint32(NEIGHBOURS) <= np.uint32(2 * NEIGHBOURS)


def _candidates(
    order: NDArray[np.int64], line: NDArray[np.uint32]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields all pairs of neighbours in the line: those side by side first, then those two apart, and so on."""
    at = np.arange(len(order), dtype=np.int64)
    for distance in range(1, NEIGHBOURS + 1):
        at = at[at + distance < len(order)]
        at = at[line[at + distance] - line[at] == distance]
        if len(at) == 0:
            return
        yield order[at], order[at + distance]


def _united(groups: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """The groups after those of each left and right text have become one."""
    if len(left) == 0:
        return groups
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    touched, ends = np.unique(np.concatenate([groups[left], groups[right]]), return_inverse=True)
    first, second = ends.reshape(2, -1)
    edges = coo_array((np.ones(len(left), np.int8), (first, second)), shape=(len(touched), len(touched)))
    _, parts = connected_components(edges, directed=False)
    # A new group has the number of its first old one.
    representative = np.full(int(parts.max()) + 1, -1, np.int64)
    representative[parts[::-1]] = touched[::-1]
    renumbered = np.arange(len(groups), dtype=np.int64)
    renumbered[touched] = representative[parts]
    united: NDArray[np.int64] = renumbered[groups]
    return united
