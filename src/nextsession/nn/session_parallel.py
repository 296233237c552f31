"""Session-parallel mini-batches: many sessions side by side, one event of each a step (Hidasi et al. 2016).

Row `b` of the batch walks through a session; when it has no further pair of an event and the next,
the row takes the next session that nobody has begun, and its hidden state starts from zero.  When
none is left the row goes, and the batch shrinks.  So every pair is used exactly once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled


@dataclass(frozen=True, eq=False)
class Step:
    """One step: places of events in the log, and what becomes of the rows of the step before."""

    inputs: NDArray[np.int64]  # (M,) the event each row has come to; its target is the next event
    fresh: NDArray[np.bool_]  # (M,) does the row begin a session? then its hidden state is zero
    kept: NDArray[np.int64]  # (M,) which row of the step before this row was, rising


@dataclass(frozen=True, eq=False)
class SessionParallel:
    """The steps of one epoch; iterating gives each `Step`."""

    starts: NDArray[np.int64]  # (S,) first event of each session, in the order in which they are begun
    stops: NDArray[np.int64]  # (S,) and the event after its last; sessions of one event are passed over
    batch_size: int

    def __iter__(self) -> Iterator[Step]:
        """Give the steps one after the other."""
        at, last, fresh, kept, state = begin(self.starts, self.stops, self.batch_size)
        while state[0] > 0:
            n = state[0]
            yield Step(at[:n].copy(), fresh[:n].copy(), kept[:n].copy())
            advance(self.starts, self.stops, at, last, fresh, kept, state)


@compiled
def begin(
    starts: NDArray[np.int64], stops: NDArray[np.int64], batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Give the first sessions to the rows.

    Returns:
        `at` `(B,)` the event of each row; `last` `(B,)` the last of its session; `fresh` and `kept`
        as in `Step`; and the number of rows and of sessions begun, `(2,)`.
    """
    at, last = np.zeros(batch_size, np.int64), np.zeros(batch_size, np.int64)
    fresh, kept = np.ones(batch_size, np.bool_), np.arange(batch_size)
    state = np.zeros(2, np.int64)
    while state[0] < batch_size and state[1] < len(starts):
        session = state[1]
        state[1] += 1
        if stops[session] - starts[session] > 1:
            at[state[0]], last[state[0]] = starts[session], stops[session] - 1
            state[0] += 1
    return at, last, fresh, kept, state


@compiled
def advance(
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    at: NDArray[np.int64],
    last: NDArray[np.int64],
    fresh: NDArray[np.bool_],
    kept: NDArray[np.int64],
    state: NDArray[np.int64],
) -> None:
    """Go one event further in every row, in place: the arrays are those of `begin`."""
    rows = 0
    for row in range(state[0]):
        event, end, new = at[row] + 1, last[row], False
        if event == end:  # the last event has no next
            while state[1] < len(starts) and stops[state[1]] - starts[state[1]] < 2:
                state[1] += 1
            if state[1] == len(starts):
                continue  # nobody is left to take the row
            event, end, new = starts[state[1]], stops[state[1]] - 1, True
            state[1] += 1
        at[rows], last[rows], fresh[rows], kept[rows] = event, end, new, row
        rows += 1
    state[0] = rows
