"""What is in a log: sizes, spans, lengths, popularity, repeats, labels, the age of items, hours of the day.

>>> from nextsession import SessionLog
>>> print(describe(SessionLog.from_lists([[["a", "b", "a"]], [["c"], ["a"]]])).text().splitlines()[2])
events                   5   1.7 a session, 1.7 an item

One pass of compiled loops over the log; memory beside the log grows with users, sessions and items
only, so that a hundred million events can be described on a laptop.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.log import SessionLog

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
"""The quantiles of a `Spread`; a quantile is a value that occurs (the least that this share does not exceed)."""

AGES = (3_600_000, 86_400_000, 604_800_000)
"""Ages of items, ms: an hour, a day, a week."""

_BLOCK = 1 << 22
_BINS = 1 << 21  # of times, on the way to their median
DAY = 86_400_000
"""Milliseconds of a day."""

_MINUTE, _HOUR = 60_000, 3_600_000
_WIDTHS = [_MINUTE * m for m in (1, 5, 15, 60, 180, 720)] + [DAY * d for d in (1, 7, 28, 91, 364, 3640, 36400)]
_MOST_BINS = 60


@dataclass(frozen=True)
class Spread:
    """How one number is spread over users, sessions or items; all NaN where there is none of them."""

    mean: float
    quantiles: tuple[float, ...]
    """At the shares `QUANTILES`."""
    edges: tuple[float, ...]
    """Edges of a histogram, each about half as large again as the one before; the last bin is closed."""
    counts: tuple[int, ...]
    """How many fall in each bin."""


@dataclass(frozen=True)
class Popularity:
    """How events are shared out among the items that occur."""

    gini: float
    """0: all items are equally popular; near 1: one item has everything."""
    top_share: tuple[float, float]
    """Share of the events on the most popular 1 % and 10 % of the items (rounded up to whole items)."""
    ranks: tuple[int, ...]
    """Some ranks, from 1 (the most popular item) to the last, evenly spread on a logarithmic axis."""
    events: tuple[int, ...]
    """Events of the items at these ranks."""


@dataclass(frozen=True)
class Repeats:
    """Shares of the events whose item had been there before."""

    before: float
    """It is the item of the event just before in the same session."""
    session: float
    """It occurred earlier in the same session."""
    history: float
    """It occurred earlier in any session of the same user (this one included)."""


@dataclass(frozen=True)
class LabelBalance:
    """Wanted events, and events shown and ignored."""

    wanted: int
    ignored: int
    sessions_without: float
    """Share of the sessions in which nothing was wanted."""


@dataclass(frozen=True)
class Timeline:
    """The log in bins of equal length (UTC), first to last event."""

    width: int
    """Length of a bin, ms."""
    starts: tuple[int, ...]
    """Where each bin begins, ms since 1970 UTC."""
    events: tuple[int, ...]
    """Events in each bin."""
    wanted: tuple[int, ...]
    """Those with label 1."""
    new_items: tuple[float, ...]
    """Share of the bin's events on items that occur in no earlier bin; NaN for a bin without events."""
    hours: tuple[int, ...]
    """Events in each hour of the day, UTC, all days together."""


@dataclass(frozen=True)
class Newness:
    """How young the items are that people meet: of the later half of the events (from the median time on)."""

    unseen: float
    """Share on items that do not occur in the earlier half."""
    younger_than: tuple[float, ...]
    """Share on items whose first event in the log is less than an hour, a day, a week ago (see `AGES`)."""


@dataclass(frozen=True)
class Description:
    """Everything `describe` finds; parts that need times are None for a log that only has an order."""

    users: int
    sessions: int
    events: int
    items: int
    """Items of the vocabulary."""
    items_seen: int
    """Items that occur."""
    first: int | None
    """Time of the first event, ms since 1970 UTC."""
    last: int | None
    """Time of the last event, ms since 1970 UTC."""
    session_events: Spread
    user_sessions: Spread
    user_events: Spread
    item_events: Spread
    session_minutes: Spread | None
    """From the first to the last event of a session."""
    return_hours: Spread | None
    """From the beginning of a session to the beginning of the same user's next one."""
    one_event_sessions: float
    """Share of the sessions with a single event."""
    one_session_users: float
    """Share of the users with a single session."""
    popularity: Popularity
    repeats: Repeats
    labels: LabelBalance
    actions: dict[str, int]
    timeline: Timeline | None
    newness: Newness | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dictionaries, lists, numbers, and None for NaN: ready for JSON."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def text(self) -> str:
        """Return everything worth reading, aligned for a terminal of 100 columns."""
        from nextsession.data.summary import lines

        return "\n".join(lines(self))

    def plots(self, path: Path | str) -> Path:
        """Draw six panels and write them as `.png`, `.svg` or `.pdf`.

        Raises:
            ConfigError: The name ends otherwise.
        """
        from nextsession.data.charts import draw

        return draw(self, Path(path))


def describe(log: SessionLog) -> Description:
    """Describe a log of any size, also an empty one.

    Shares are of all events, wanted or not, and are 0 where there is nothing to share.
    """
    n = log.n_events
    lengths = np.diff(log.session_offsets)
    visits = np.diff(log.user_offsets)
    counts = np.bincount(log.items, minlength=log.n_items)
    seen = counts[counts > 0]
    minutes = returns = None
    if log.timed:
        minutes = _spread((log.session_ends - log.session_starts) / _MINUTE)
        later = np.ones(log.n_sessions, bool)
        later[log.user_offsets[:-1][visits > 0]] = False
        returns = _spread(np.diff(log.session_starts, prepend=0)[later] / _HOUR)
    first, last = _span(log)
    return Description(
        users=len(log),
        sessions=log.n_sessions,
        events=n,
        items=log.n_items,
        items_seen=len(seen),
        first=first,
        last=last,
        session_events=_spread(lengths),
        user_sessions=_spread(visits),
        user_events=_spread(np.diff(log.event_offsets)),
        item_events=_spread(seen),
        session_minutes=minutes,
        return_hours=returns,
        one_event_sessions=share(np.count_nonzero(lengths == 1), len(lengths)),
        one_session_users=share(np.count_nonzero(visits == 1), len(visits)),
        popularity=_popularity(seen),
        repeats=Repeats(
            *(share(c, n) for c in _count_repeats(log.items, log.session_offsets, log.user_offsets, log.n_items))
        ),
        labels=_balance(log),
        actions=_actions(log),
        timeline=None if first is None or last is None else _timeline(log, first, last),
        newness=None if first is None else _newness(log),
    )


# -- numbers ------------------------------------------------------------------------------------


def share(part: SupportsFloat, whole: float) -> float:
    """Return a share; 0 of nothing."""
    return float(part) / whole if whole else 0.0


def _span(log: SessionLog) -> tuple[int | None, int | None]:
    if not log.timed or log.n_events == 0:
        return None, None
    return int(log.session_starts.min()), int(log.session_ends.max())


def _spread(values: NDArray[Any]) -> Spread:
    if len(values) == 0:
        return Spread(math.nan, (math.nan,) * len(QUANTILES), (), ())
    quantiles = np.quantile(values, QUANTILES, method="inverted_cdf")
    edges = [0.0, 1.0]
    while edges[-1] <= quantiles[-1]:
        edges.append(max(edges[-1] + 1, math.floor(edges[-1] * 1.5)))
    counts, _ = np.histogram(values, bins=np.array(edges))
    return Spread(float(values.mean()), tuple(map(float, quantiles)), tuple(edges), tuple(counts.tolist()))


def _popularity(seen: NDArray[np.int64]) -> Popularity:
    """Describe the numbers of events of the items that occur."""
    n, total = len(seen), int(seen.sum())
    if n == 0:
        return Popularity(0.0, (0.0, 0.0), (), ())
    ranked = np.sort(seen)[::-1]
    # Half the mean absolute difference of two items over the mean, from the sorted numbers.
    gini = float(np.sum((n + 1 - 2 * np.arange(1, n + 1, dtype=float)) * ranked)) / (n * total)
    top = [int(ranked[: -(-n // share)].sum()) / total for share in (100, 10)]
    ranks = np.unique(np.geomspace(1, n, min(n, 100)).round().astype(np.int64))
    return Popularity(gini, (top[0], top[1]), tuple(ranks.tolist()), tuple(ranked[ranks - 1].tolist()))


def _balance(log: SessionLog) -> LabelBalance:
    if log.n_events == 0:
        return LabelBalance(0, 0, 0.0)
    if log.labels.strides == (0,):
        wanted = log.n_events if log.labels[0] == 1 else 0
        return LabelBalance(wanted, log.n_events - wanted, 0.0 if wanted else 1.0)
    best = np.maximum.reduceat(log.labels, log.session_offsets[:-1])
    wanted = int(np.count_nonzero(log.labels == 1))
    return LabelBalance(wanted, log.n_events - wanted, share(np.count_nonzero(best != 1), len(best)))


def _actions(log: SessionLog) -> dict[str, int]:
    if log.actions is None:
        return {}
    counts = np.bincount(log.actions, minlength=len(log.action_names)).tolist()
    return dict(zip(log.action_names, counts, strict=True))


def _blocks(n: int) -> Iterator[slice]:
    for start in range(0, n, _BLOCK):
        yield slice(start, min(start + _BLOCK, n))


def _first_times(log: SessionLog) -> NDArray[np.int64]:
    """Return when each item occurs first, `(V,)` ms; the largest int64 for an item that does not."""
    first = np.full(log.n_items, np.iinfo(np.int64).max)
    for part in _blocks(log.n_events):
        np.minimum.at(first, log.items[part], log.times[part])
    return first


def _timeline(log: SessionLog, first: int, last: int) -> Timeline:
    width = next((w for w in _WIDTHS if last // w - first // w < _MOST_BINS), _WIDTHS[-1])
    start = first // width
    bins = last // width - start + 1
    events, wanted, fresh = np.zeros((3, bins), np.int64)
    hours = np.zeros(24, np.int64)
    born = _first_times(log) // width - start
    for part in _blocks(log.n_events):
        times = log.times[part]
        place = times // width - start
        events += np.bincount(place, minlength=bins)
        wanted += np.bincount(place[log.labels[part] == 1], minlength=bins)
        fresh += np.bincount(place[born[log.items[part]] == place], minlength=bins)
        hours += np.bincount(times // _HOUR % 24, minlength=24)
    return Timeline(
        width=width,
        starts=tuple((start + b) * width for b in range(bins)),
        events=tuple(events.tolist()),
        wanted=tuple(wanted.tolist()),
        new_items=tuple(f / e if e else math.nan for f, e in zip(fresh.tolist(), events.tolist(), strict=True)),
        hours=tuple(hours.tolist()),
    )


def _median(times: NDArray[np.int64]) -> int:
    """Return the median time, the earlier of two: first to a wide bin, then to the millisecond, without a copy."""
    low, high = int(times.min()), int(times.max())
    width = (high - low) // _BINS + 1
    low, before = _bin_of(times, (len(times) - 1) // 2, low, width, _BINS)
    return _bin_of(times, (len(times) - 1) // 2 - before, low, 1, width)[0]


def _bin_of(times: NDArray[np.int64], place: int, low: int, width: int, bins: int) -> tuple[int, int]:
    """Return where the bin begins that holds the `place`-th of the times in all bins, and how many come before it."""
    counts = np.zeros(bins, np.int64)
    for part in _blocks(len(times)):
        found = (times[part] - low) // width
        counts += np.bincount(found[(found >= 0) & (found < bins)], minlength=bins)
    ends = np.cumsum(counts)
    chosen = int(np.searchsorted(ends, place, side="right"))
    return low + chosen * width, int(ends[chosen] - counts[chosen])


def _newness(log: SessionLog) -> Newness:
    first = _first_times(log)
    middle = _median(log.times)
    late = unseen = 0
    younger = [0] * len(AGES)
    for part in _blocks(log.n_events):
        second = log.times[part] >= middle
        times, since = log.times[part][second], first[log.items[part][second]]
        late += len(times)
        unseen += int(np.count_nonzero(since >= middle))
        for a, age in enumerate(AGES):
            younger[a] += int(np.count_nonzero(times - since < age))
    return Newness(share(unseen, late), tuple(share(y, late) for y in younger))


@compiled
def _count_repeats(
    items: NDArray[np.int32], session_offsets: NDArray[np.int64], user_offsets: NDArray[np.int64], n_items: int
) -> tuple[int, int, int]:
    """Count the events whose item was just before, earlier in the session, earlier in the user's history."""
    in_session = np.full(n_items, -1, np.int64)
    in_history = np.full(n_items, -1, np.int64)
    before = session = history = 0
    for u in range(len(user_offsets) - 1):
        for s in range(user_offsets[u], user_offsets[u + 1]):
            for e in range(session_offsets[s], session_offsets[s + 1]):
                item = items[e]
                before += e > session_offsets[s] and items[e - 1] == item
                session += in_session[item] == s
                history += in_history[item] == u
                in_session[item] = s
                in_history[item] = u
    return before, session, history


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
