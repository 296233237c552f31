"""What is left out of a log: rules, applied in rounds until nothing changes, with an account.

The rules of a round, in this order:

1. `repeats`: an event whose item is that of the event before it in its session goes;
2. `item_events`: items of fewer events go, with all their events;
3. `user_events`: users of fewer events go;
4. `longest_session`, `session_events`, `session_positives`: sessions too long, too short or with
   too few wanted events go;
5. `user_sessions`: users of fewer sessions go.

Every event counts, wanted or not, except for `session_positives`.  One rule makes work for another
(a session that goes takes support from its items), so rounds are repeated until one removes
nothing, or `passes` times.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.format import Filters
from nextsession.data.log import SessionLog


@dataclass(frozen=True)
class Sizes:
    """How much there is of a log."""

    events: int
    sessions: int
    users: int
    items: int

    def __sub__(self, other: "Sizes") -> "Sizes":
        """Return what is lost from this to the other."""
        return Sizes(
            self.events - other.events,
            self.sessions - other.sessions,
            self.users - other.users,
            self.items - other.items,
        )

    def __str__(self) -> str:
        """Write the sizes as people do."""
        return f"{self.events:,} events, {self.sessions:,} sessions, {self.users:,} users, {self.items:,} items"


@dataclass(frozen=True)
class Removal:
    """What one rule removed in one round."""

    round: int
    rule: str
    least: int | str
    removed: Sizes


@dataclass(frozen=True)
class FilterAccount:
    """What every rule removed in every round."""

    before: Sizes
    after: Sizes
    removals: tuple[Removal, ...]
    settled: bool
    """Whether another round would remove nothing (not known if `passes` ended it: then False)."""

    def to_dict(self) -> dict[str, Any]:
        """Return the account as plain values."""
        return {**asdict(self), "removals": [asdict(removal) for removal in self.removals]}

    def __str__(self) -> str:
        """Print the account, a line for every rule and round."""
        lines = [f"before   {self.before}"]
        lines += [f"round {r.round}  {r.rule} {r.least}: removed {r.removed}" for r in self.removals]
        return "\n".join([*lines, f"after    {self.after}{'' if self.settled else ' (rounds were limited)'}"])


def keep_of(
    items: NDArray[np.int32],
    labels: NDArray[np.int8],
    session_offsets: NDArray[np.int64],
    user_offsets: NDArray[np.int64],
    n_items: int,
    filters: Filters,
) -> tuple[NDArray[np.bool_], FilterAccount]:
    """Return which events stay, `(N,)`, and the account.

    Columns are those of a `SessionLog` and may be memory-mapped: they are read from front to back.
    """
    keep = np.ones(len(items), np.bool_)
    before = now = Sizes(*_sizes(keep, items, session_offsets, user_offsets, n_items))
    removals: list[Removal] = []
    rules = list(_rules(items, labels, session_offsets, user_offsets, n_items, filters))
    settled, turn = not rules, 0
    while not settled and turn != filters.passes:
        turn += 1
        start = now
        for rule, least, apply in rules:
            apply(keep)
            then, now = now, Sizes(*_sizes(keep, items, session_offsets, user_offsets, n_items))
            removals.append(Removal(turn, rule, least, then - now))
        settled = now == start
    return keep, FilterAccount(before, now, tuple(removals), settled)


def filtered(log: SessionLog, filters: Filters) -> tuple[SessionLog, FilterAccount]:
    """Return the log without what the filters leave out, in a vocabulary of what is left, and the account."""
    keep, account = keep_of(log.items, log.labels, log.session_offsets, log.user_offsets, log.n_items, filters)
    return log.events(keep).compact(), account


def _rules(
    items: NDArray[Any],
    labels: NDArray[Any],
    session_offsets: NDArray[Any],
    user_offsets: NDArray[Any],
    n_items: int,
    filters: Filters,
) -> Iterator[tuple[str, int | str, Any]]:
    if filters.repeats == "drop":
        yield "repeats", "drop", lambda keep: _drop_repeats(keep, items, session_offsets)
    if filters.item_events > 1:
        yield "item_events", filters.item_events, lambda keep: _drop_items(keep, items, n_items, filters.item_events)
    event_offsets = session_offsets[user_offsets]
    if filters.user_events > 1:
        yield (
            "user_events",
            filters.user_events,
            lambda keep: _drop_runs(keep, event_offsets, filters.user_events, len(keep)),
        )
    if filters.longest_session:
        yield (
            "longest_session",
            filters.longest_session,
            lambda keep: _drop_runs(keep, session_offsets, 0, filters.longest_session),
        )
    if filters.session_events > 1:
        yield (
            "session_events",
            filters.session_events,
            lambda keep: _drop_runs(keep, session_offsets, filters.session_events, len(keep)),
        )
    if filters.session_positives:
        yield (
            "session_positives",
            filters.session_positives,
            lambda keep: _drop_unwanted(keep, labels, session_offsets, filters.session_positives),
        )
    if filters.user_sessions > 1:
        yield (
            "user_sessions",
            filters.user_sessions,
            lambda keep: _drop_users(keep, session_offsets, user_offsets, filters.user_sessions),
        )


@compiled
def _sizes(
    keep: NDArray[Any], items: NDArray[Any], session_offsets: NDArray[Any], user_offsets: NDArray[Any], n_items: int
) -> Any:
    seen = np.zeros(n_items, np.bool_)
    events, sessions, users = 0, 0, 0
    for u in range(len(user_offsets) - 1):
        before = sessions
        for s in range(user_offsets[u], user_offsets[u + 1]):
            count = 0
            for e in range(session_offsets[s], session_offsets[s + 1]):
                if keep[e]:
                    count += 1
                    seen[items[e]] = True
            events += count
            sessions += count > 0
        users += sessions > before
    return events, sessions, users, seen.sum()


@compiled
def _drop_repeats(keep: NDArray[Any], items: NDArray[Any], session_offsets: NDArray[Any]) -> None:
    for s in range(len(session_offsets) - 1):
        last = -1
        for e in range(session_offsets[s], session_offsets[s + 1]):
            if keep[e]:
                if items[e] == last:
                    keep[e] = False
                last = items[e]


@compiled
def _drop_items(keep: NDArray[Any], items: NDArray[Any], n_items: int, least: int) -> None:
    counts = np.zeros(n_items, np.int64)
    for e in range(len(items)):
        counts[items[e]] += keep[e]
    for e in range(len(items)):
        if counts[items[e]] < least:
            keep[e] = False


@compiled
def _drop_runs(keep: NDArray[Any], offsets: NDArray[Any], least: int, most: int) -> None:
    for r in range(len(offsets) - 1):
        run = keep[offsets[r] : offsets[r + 1]]
        count = run.sum()
        if count < least or count > most:
            run[:] = False


@compiled
def _drop_unwanted(keep: NDArray[Any], labels: NDArray[Any], session_offsets: NDArray[Any], least: int) -> None:
    for s in range(len(session_offsets) - 1):
        a, b = session_offsets[s], session_offsets[s + 1]
        wanted = 0
        for e in range(a, b):
            wanted += keep[e] and labels[e] == 1
        if wanted < least:
            keep[a:b] = False


@compiled
def _drop_users(keep: NDArray[Any], session_offsets: NDArray[Any], user_offsets: NDArray[Any], least: int) -> None:
    for u in range(len(user_offsets) - 1):
        left = 0
        for s in range(user_offsets[u], user_offsets[u + 1]):
            if keep[session_offsets[s] : session_offsets[s + 1]].any():
                left += 1
        if left < least:
            keep[session_offsets[user_offsets[u]] : session_offsets[user_offsets[u + 1]]] = False
