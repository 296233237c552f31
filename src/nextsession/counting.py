"""Counting: which item follows or accompanies which, and how often, in rows that are ready to be read.

The rule-based models of `nextsession.models` differ in what they count.  They share a `Table`: for
each antecedent its consequents, best first, so that pruning is reading only the front of a row, and
nothing that was counted is lost when the model learns on.

Rows are counted one antecedent at a time: all places where the item occurs are visited and what is
found around them is added up in one array over the items.  Nothing is ever sorted but the finished
row, and no list of pairs is ever held: the memory is that of the result.
"""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.log import SessionLog, offsets_of
from nextsession.scores import SparseScores, tie_keys

Weighting: TypeAlias = Literal["same", "div", "linear", "log", "quadratic"]
"""How much an event counts that lies `k` steps away: 1, 1/k, 1 - k/10 (never below 0), 1/log10(k + 1.7), 1/k^2."""


class Table(NamedTuple):
    """Weighted consequents of each antecedent: those of row `a` are `items[offsets[a]:offsets[a + 1]]`."""

    offsets: NDArray[np.int64]  # (A+1,)
    items: NDArray[np.int32]  # (P,) no code twice in a row
    values: NDArray[np.float32]  # (P,) never negative; counts are exact up to 2^24

    def best_first(self, n_items: int, by: NDArray[np.float32] | None = None) -> "Table":
        """Return the table with each row in falling order of `by` (the values unless given), ties as in lists."""
        keys = self.values if by is None else by
        order = _order(self.offsets, self.items, np.ascontiguousarray(keys).view(np.uint32), tie_keys(n_items))
        return Table(self.offsets, self.items[order], self.values[order])

    def at_rows(self, rows: NDArray[np.int64], n_rows: int) -> "Table":
        """Return a table of `n_rows` in which row `r` of this one is row `rows[r]`; `rows` must rise."""
        lengths = np.zeros(n_rows, np.int64)
        lengths[rows] = np.diff(self.offsets)
        return Table(offsets_of(lengths), self.items, self.values)

    def plus(self, other: "Table", n_items: int) -> "Table":
        """Return the sum of two tables of equally many rows, in no particular order."""
        lengths = _sum(*self, *other, n_items, np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        offsets = offsets_of(lengths)
        items, values = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.float32)
        _sum(*self, *other, n_items, offsets, items, values)
        return Table(offsets, items, values)


def weights(kind: Weighting, farthest: int) -> NDArray[np.float64]:
    """Return the weight of each distance `0..farthest`; that of 0 is never used.

    >>> weights("div", 4).tolist()
    [0.0, 1.0, 0.5, 0.3333333333333333, 0.25]
    """
    k = np.arange(1, farthest + 1, dtype=np.float64)
    by_kind = {
        "same": np.ones_like(k),
        "div": 1 / k,
        "linear": np.maximum(0.0, 1 - k / 10),
        "log": 1 / np.log10(k + 1.7),
        "quadratic": 1 / k**2,
    }
    return np.concatenate([[0.0], by_kind[kind]])


def following(log: SessionLog, weight: NDArray[np.float64]) -> Table:
    """Count what follows each item in the same session, `k` steps later with weight `weight[k]`.

    An item that follows itself is counted like any other.
    """
    places = np.argsort(log.items, kind="stable")
    starts = offsets_of(np.bincount(log.items, minlength=log.n_items))
    ends = log.session_offsets[1:][log.session_of_event]
    arguments = (starts, places, ends, log.items, weight, log.n_items)
    lengths = _following(*arguments, np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    offsets = offsets_of(lengths)
    items, values = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.float32)
    _following(*arguments, offsets, items, values)
    return Table(offsets, items, values)


def together(log: SessionLog, partners: SessionLog) -> Table:
    """Count for each event of `log` the events of the same session of `partners`, apart from itself.

    With `partners` the log itself these are all ordered pairs of events; with `distinct(log)` in
    both places, the sessions that hold both items.
    """
    sessions = log.session_of_event[np.argsort(log.items, kind="stable")]
    starts = offsets_of(np.bincount(log.items, minlength=log.n_items))
    arguments = (starts, sessions, partners.session_offsets, partners.items, log.n_items)
    lengths = _together(*arguments, np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    offsets = offsets_of(lengths)
    items, values = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.float32)
    _together(*arguments, offsets, items, values)
    return Table(offsets, items, values)


def distinct(log: SessionLog) -> SessionLog:
    """Return the log in which each session holds each of its items once, where it first occurs."""
    keys = log.session_of_event * log.n_items + log.items
    chosen = np.zeros(log.n_events, np.bool_)
    chosen[np.unique(keys, return_index=True)[1]] = True
    return log if chosen.all() else log.events(chosen, keep_users=True)


def votes(
    table: Table, histories: SessionLog, weight: NDArray[np.float64], pruning: int | None, n_items: int
) -> SparseScores:
    """Score the consequents of the latest items of each last session.

    The item `k` events from the end (the last is `k = 1`) gives each of its first `pruning`
    consequents `weight[k]` times its value; events further back than `weight` reaches give nothing.
    """
    starts, stops = histories.last_sessions
    starts = np.maximum(starts, stops - (len(weight) - 1))
    longest = n_items if pruning is None else pruning
    room = _room(table.offsets, longest, n_items, histories.items, starts, stops)
    ends = np.zeros(n_items, np.int64)  # NumPy's zeros cost nothing where they are not touched, numba's do
    offsets, items, values = _votes(*table, histories.items, starts, stops, weight, longest, ends, room)
    return SparseScores(offsets, items, values, n_items)


def shares(counts: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return numbers in [0, 1) in the order of the counts: equal for equal counts, 0 for a count of 0.

    They break ties of whole numbers; being spread evenly over the distinct counts, they stay apart
    in float32 where `count / (1 + count)` would not.

    >>> shares(np.array([7, 0, 1_000_000, 7])).tolist()
    [0.3333333432674408, 0.0, 0.6666666865348816, 0.3333333432674408]
    """
    levels = np.unique(np.append(counts, 0))
    return (np.searchsorted(levels, counts) / len(levels)).astype(np.float32)


@compiled
def _following(
    starts: NDArray[np.int64],
    places: NDArray[np.int64],
    ends: NDArray[np.int64],
    items: NDArray[np.int32],
    weight: NDArray[np.float64],
    n_items: int,
    offsets: NDArray[np.int64],
    out_items: NDArray[np.int32],
    out_values: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Write the rows; with no room to write to, only return their lengths."""
    sums = np.zeros(n_items, np.float64)
    stamp = np.full(n_items, -1, np.int64)
    found = np.empty(n_items, np.int32)
    lengths = np.zeros(n_items, np.int64)
    reach = len(weight)
    writes = len(offsets) > 1
    for a in range(n_items):
        n = 0
        for o in range(starts[a], starts[a + 1]):
            p = places[o]
            for q in range(p + 1, min(p + reach, ends[p])):
                b = items[q]
                if weight[q - p] > 0:
                    if stamp[b] != a:
                        stamp[b] = a
                        sums[b] = 0.0
                        found[n] = b
                        n += 1
                    sums[b] += weight[q - p]
        lengths[a] = n
        if writes:
            for i in range(n):
                out_items[offsets[a] + i] = found[i]
                out_values[offsets[a] + i] = sums[found[i]]
    return lengths


@compiled
def _together(
    starts: NDArray[np.int64],
    sessions: NDArray[np.int64],
    partner_offsets: NDArray[np.int64],
    partners: NDArray[np.int32],
    n_items: int,
    offsets: NDArray[np.int64],
    out_items: NDArray[np.int32],
    out_values: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Write the rows; with no room to write to, only return their lengths."""
    sums = np.zeros(n_items, np.float64)
    stamp = np.full(n_items, -1, np.int64)
    found = np.empty(n_items, np.int32)
    lengths = np.zeros(n_items, np.int64)
    writes = len(offsets) > 1
    for a in range(n_items):
        n = 0
        o = starts[a]
        while o < starts[a + 1]:
            session = sessions[o]
            times = 0
            while o < starts[a + 1] and sessions[o] == session:
                times += 1
                o += 1
            first_own = True  # an event is no partner of itself
            for q in range(partner_offsets[session], partner_offsets[session + 1]):
                b = partners[q]
                if b == a and first_own:
                    first_own = False
                    continue
                if stamp[b] != a:
                    stamp[b] = a
                    sums[b] = 0.0
                    found[n] = b
                    n += 1
                sums[b] += times
        lengths[a] = n
        if writes:
            for i in range(n):
                out_items[offsets[a] + i] = found[i]
                out_values[offsets[a] + i] = sums[found[i]]
    return lengths


@compiled
def _sum(
    offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    values: NDArray[np.float32],
    other_offsets: NDArray[np.int64],
    other_items: NDArray[np.int32],
    other_values: NDArray[np.float32],
    n_items: int,
    out_offsets: NDArray[np.int64],
    out_items: NDArray[np.int32],
    out_values: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Write the rows; with no room to write to, only return their lengths."""
    n_rows = len(offsets) - 1
    stamp = np.full(n_items, -1, np.int64)
    place = np.zeros(n_items, np.int64)
    lengths = np.zeros(n_rows, np.int64)
    writes = len(out_offsets) > 1
    for r in range(n_rows):
        n = 0
        for part in range(2):
            a = offsets[r] if part == 0 else other_offsets[r]
            z = offsets[r + 1] if part == 0 else other_offsets[r + 1]
            for e in range(a, z):
                b = items[e] if part == 0 else other_items[e]
                value = values[e] if part == 0 else other_values[e]
                if stamp[b] != r:
                    stamp[b] = r
                    place[b] = n
                    n += 1
                    if writes:
                        out_items[out_offsets[r] + place[b]] = b
                        out_values[out_offsets[r] + place[b]] = value
                elif writes:
                    out_values[out_offsets[r] + place[b]] += value
        lengths[r] = n
    return lengths


@compiled
def _order(
    offsets: NDArray[np.int64], items: NDArray[np.int32], bits: NDArray[np.uint32], ties: NDArray[np.uint32]
) -> NDArray[np.int64]:
    """Return the permutation that puts each row in falling order; floats that are not negative sort like their bits."""
    order = np.empty(len(items), np.int64)
    for r in range(len(offsets) - 1):
        a, z = offsets[r], offsets[r + 1]
        keys = np.empty(z - a, np.uint64)
        for e in range(a, z):
            keys[e - a] = (np.uint64(np.uint32(~bits[e])) << np.uint64(32)) | np.uint64(ties[items[e]])
        order[a:z] = a + np.argsort(keys)
    return order


@compiled
def _room(
    offsets: NDArray[np.int64],
    pruning: int,
    n_items: int,
    asked: NDArray[np.int32],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> int:
    """Return how many candidates there are at most."""
    room = 0
    for b in range(len(starts)):
        own = 0
        for e in range(starts[b], stops[b]):
            own += min(pruning, offsets[asked[e] + 1] - offsets[asked[e]])
        room += min(own, n_items)
    return room


@compiled
def _votes(
    offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    values: NDArray[np.float32],
    asked: NDArray[np.int32],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    weight: NDArray[np.float64],
    pruning: int,
    ends: NDArray[np.int64],
    room: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Add the votes up; `ends` is scratch, `(V,)` zeros: of each item one past its last candidate so far."""
    n = len(starts)
    out_offsets = np.zeros(n + 1, np.int64)
    out_items = np.empty(room, np.int32)
    out_values = np.empty(room, np.float32)
    several = len(weight) > 2
    size = 0
    for b in range(n):
        for e in range(starts[b], stops[b]):
            factor = weight[stops[b] - e]
            if factor <= 0:
                continue
            a = offsets[asked[e]]
            for i in range(a, min(a + pruning, offsets[asked[e] + 1])):
                code = items[i]
                if several and ends[code] > out_offsets[b]:
                    out_values[ends[code] - 1] += factor * values[i]
                    continue
                if several:
                    ends[code] = size + 1
                out_items[size] = code
                out_values[size] = factor * values[i]
                size += 1
        out_offsets[b + 1] = size
    return out_offsets, out_items[:size], out_values[:size]
