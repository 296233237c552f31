"""Asking: a network is trained by putting it questions as an evaluation does, each at its instant.

The other way to train, by all events or sessions of a row in one pass, is cheaper; but what was known of
every item at the instant of a question (`nextsession.nn.moments`) is another thing for each of them.
Here questions of one short while are put at once, so that it is worked out once for all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from nextsession.config import Duration, Settings, duration_text, milliseconds
from nextsession.data.log import SessionLog
from nextsession.errors import ConfigError
from nextsession.habits import Habits
from nextsession.nn.batches import Rows, cuts
from nextsession.nn.known import History, known
from nextsession.nn.moments import AskedBatch, MomentNetwork, answered
from nextsession.slices import Slices
from nextsession.tasks import Plan, item_questions, session_questions, time_order, wanted_events

_EVENTS = 4
"""Of a history so many times `max_length` events are looked at, for what a person had before too."""
_ROWS = 1 << 19
"""Rows of what is known of the items, for all instants, that are worked out at once in answers."""


_WINDOWS = tuple(milliseconds(x) for x in ("2m", "5m", "15m", "30m", "1h", "3h", "6h", "12h", "1d", "3d", "7d"))


class MomentSettings(Settings):
    """What is known at the moment of asking, beside the history's query: see `nextsession.nn.moments`."""

    windows: tuple[Duration, ...] = _WINDOWS
    """Lengths of time before the instant of the question in which the events of every item are counted; none: they are
    not, as in logs without times."""
    repeats: bool = True
    """Have the items of a person's history a score of their own, by how often and how long ago they were wanted?"""
    habits: bool = False
    """Is it looked up what everybody has again, for the scores of what the person had before?  Where people buy the
    same again, as on groceries."""
    asks: Literal["next-session", "next-item", "both"] = "both"
    """What training asks for: what is wanted in a session, as it begins; the next event within one, of which one is
    drawn from each session; or both."""
    width: int = Field(default=8, ge=1)
    """Numbers that become of what is known of an item; a query says how much it makes of each."""
    hidden: int = Field(default=32, ge=1)
    """Width of the small networks that make them."""
    audience: int = Field(default=0, ge=0)
    """Numbers that say what those had wanted before who wanted an item in the last hours.  By them a person meets a
    new item before it has a vector of its own: 32 where items come and go, as on news; 0: it is not looked at."""
    cold: float = Field(default=0.0, ge=0, lt=1)
    """Share of the items that a step of training meets as if they were new, drawn anew each time.  Training sees all
    that ever became of an item and trusts its vector too much: where new items are to be listed, as on news, .5."""
    resolution: Duration = Field(default=60_000, ge=1)
    """In training, what is known is that of the last full minute (or so) before the question; in answers, that of
    its instant, or of the newest event that is known if that is no more than this before it."""

    @model_validator(mode="after")
    def _counted(self) -> "MomentSettings":
        if self.audience and not self.windows:
            raise ValueError(
                "moment.audience looks at the last hours, and moment.windows = [] says that none are known"
            )
        if self.habits and not self.repeats:
            raise ValueError(
                "moment.habits weigh what the person had before, and moment.repeats = false says that has no score"
            )
        return self

    def changed(self) -> dict[str, Any]:
        """Return the settings that are not the defaults, durations as people write them."""
        found = super().changed()
        if "windows" in found:
            found["windows"] = [duration_text(window) for window in self.windows]
        return found


@dataclass(frozen=True, eq=False)
class AskedRows:
    """Questions as rows of training, by time if the log has times."""

    log: SessionLog
    plan: Plan
    history: History | None
    settings: MomentSettings
    seen: Callable[[SessionLog], Slices]
    """What is read of histories."""
    kinds: Callable[[SessionLog], NDArray[np.int64] | None]
    """The kinds of their events."""
    actions: NDArray[np.int64] | None = None
    """The kinds of all events of the log."""
    habits: Habits | None = None
    """Of everybody in the log."""

    @classmethod
    def of(
        cls,
        log: SessionLog,
        settings: MomentSettings,
        history: History | None,
        most: int,
        seed: int,
        *,
        seen: Callable[[SessionLog], Slices],
        kinds: Callable[[SessionLog], NDArray[np.int64] | None],
    ) -> "AskedRows":
        """Make the questions of a log.

        Args:
            log: What is learnt from.
            settings: What is asked, and what is known.
            history: Everybody's events.
            most: Events of a history that are looked at, the newest.
            seed: Of the events that are drawn.
            seen: What is read of histories.
            kinds: The kinds of their events.
        """
        plan = _questions(log, settings.asks, seed).recent(_EVENTS * most)
        if log.timed:
            plan = plan.take(np.argsort(plan.asked_at, kind="stable"))
        habits = Habits.of(log) if settings.habits else None
        return cls(log, plan, history, settings, seen, kinds, kinds(log), habits)

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.plan)

    def order(self, rng: np.random.Generator, rows: int, tokens: int | None = None) -> list[NDArray[np.int64]]:
        """Deal the questions into batches of `rows`: of those that were asked one after another, if there are times.

        Where batches begin is drawn anew each time, and so is the order in which they are taken.  With `tokens`
        they are smaller where histories, as far back as they are looked at, are long.
        """
        places = np.arange(len(self)) if self.log.timed else rng.permutation(len(self))
        begin = int(rng.integers(rows))
        batches = [part for part in np.split(places, np.arange(begin, len(places), rows)) if len(part)]
        if tokens is not None:
            sizes = self.plan.seen_to - self.plan.seen_from
            batches = [part for some in batches for part in np.split(some, cuts(sizes[some], rows, tokens))]
        return [batches[i] for i in rng.permutation(len(batches))]

    def batch(self, rows: NDArray[np.int64], rng: np.random.Generator | None = None) -> AskedBatch:
        """Return these questions with their answers and what was known when they were asked."""
        cases = self.plan.take(np.sort(rows)).cases(0, len(rows))
        histories = cases.histories
        settings = self.settings
        batch = Rows(histories, self.seen(histories), cases.asked_at, self.kinds(histories)).batch(
            np.arange(len(histories))
        )
        windows = np.array(settings.windows, np.int64)
        then = known(
            histories,
            cases.asked_at,
            self.history,
            windows,
            repeat=settings.repeats,
            counted_at=cases.asked_at // settings.resolution * settings.resolution,
            habits=self.habits,
            askers=cases.groups,
        )
        counts, others = np.diff(cases.target_offsets), np.diff(cases.ignored_offsets)
        every = np.arange(len(histories))
        return AskedBatch(
            batch.events,
            batch.sessions,
            batch.labels,
            batch.actions,
            batch.weights,
            then,
            torch.from_numpy(cases.targets.astype(np.int64)),
            torch.from_numpy(np.repeat(every, counts)),
            torch.from_numpy(cases.ignored.astype(np.int64)),
            torch.from_numpy(np.repeat(every, others)),
        )


def history_of(name: str, log: SessionLog, settings: MomentSettings, seed: int) -> History | None:
    """Return everybody's events, if they are to be looked up.

    Args:
        name: Of the model, for messages.
        log: What is learnt from.
        settings: Which windows are looked at.
        seed: Of what is drawn.

    Raises:
        ConfigError: The log has no times.
    """
    if not settings.windows:
        return None
    if not log.timed:
        raise ConfigError(
            f"{name}: moment.windows count events before the instant of a question, and this log holds only the order "
            "of its events. Name the column of the time, or set moment.windows = []."
        )
    return History.of(log, audience=settings.audience, seed=seed)


def answers(
    network: MomentNetwork,
    settings: MomentSettings,
    history: History | None,
    histories: SessionLog,
    asked_at: NDArray[np.int64],
    queries: Tensor,
    never: NDArray[np.bool_],
    most: int,
    habits: Habits | None = None,
) -> NDArray[np.float32]:
    """Return the scores of all items with what was known at the instant of each question, `(B, V)`.

    Args:
        network: Fitted.
        settings: What is known.
        history: Everybody's events.
        histories: One row a question; as much of it is looked at as in training.
        asked_at: `(B,)` ms.
        queries: `(B, D)`.
        never: `(V,)` items that nobody ever wanted.
        most: As in `AskedRows.of`.
        habits: Of everybody.
    """
    windows = np.array(settings.windows, np.int64)
    lengths = np.diff(histories.event_offsets)
    if lengths.max(initial=0) > _EVENTS * most:
        from_end = np.repeat(histories.event_offsets[1:], lengths) - np.arange(histories.n_events)
        histories = histories.events(from_end <= _EVENTS * most, keep_users=True)
    scores = np.empty((len(histories), len(never)), np.float32)
    step = max(1, _ROWS // max(1, len(never)))
    for first in range(0, len(histories), step):
        stop = min(first + step, len(histories))
        some, at = histories.rows(first, stop), asked_at[first:stop]
        counted_at = None if history is None else history.counted_at(at, settings.resolution)
        then = known(some, at, history, windows, repeat=settings.repeats, counted_at=counted_at, habits=habits)
        scores[first:stop] = answered(network, queries[first:stop], then, never)
    return scores


def _questions(log: SessionLog, asks: str, seed: int) -> Plan:
    """Ask for sessions as they begin, for one event within each, or for both."""
    order = time_order(log)
    liked = log.labels == 1
    sessions = np.flatnonzero(wanted_events(log) > 0)
    begins = session_questions(log, order, sessions)
    if asks == "next-session":
        return begins
    inside = np.flatnonzero(liked & (np.arange(log.n_events) > log.session_offsets[:-1][log.session_of_event]))
    inside = inside[np.random.default_rng([seed, 1]).permutation(len(inside))]
    _, first = np.unique(log.sessions_of(inside), return_index=True)  # the first of a random order is a random one
    within = item_questions(log, order, np.sort(inside[first]), "user")
    return within if asks == "next-item" else _joined(begins, within)


def _joined(one: Plan, other: Plan) -> Plan:
    names = ("seen_from", "seen_to", "asked_from", "asked_to", "asked_at", "groups", "positions")
    columns: dict[str, Any] = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in names}
    return replace(one, **columns)
