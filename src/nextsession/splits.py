"""Splits: what a model may learn from, and what it is asked.

| protocol                | asked                                                        | learns from              |
|-------------------------|--------------------------------------------------------------|--------------------------|
| `temporal`              | every next item (or session) at or after an instant          | all events before it     |
| `rolling`               | the same in steps; who can learn on is told what happened    | all events before it     |
| `session-events`        | every next event of later sessions, anonymous, from a prefix | all events before it     |
| `leave-one-session-out` | the last session of every user                               | the sessions before      |
| `leave-one-item-out`    | the last wanted item of every user                           | the events before        |
| `prefixes`              | the questions that come with the data set                    | the whole log            |

`temporal`, `rolling` and `session-events` let nothing later than the instant into training, not even
the existence of an item.  The two leave-one-out protocols do: other users' events may be later than
the question.  They are there because published tables use them.

Validation questions are made only if asked for, and what answers them is then not learnt from.  The
same settings without validation put the same test questions: tune with it, then fit again without.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from nextsession.config import Duration, Settings, milliseconds
from nextsession.data.cases import Cases, Questions
from nextsession.data.log import SessionLog
from nextsession.errors import ConfigError, DataError
from nextsession.tasks import (
    Given,
    Plan,
    Replay,
    Told,
    item_questions,
    next_item,
    next_session,
    places,
    session_questions,
    time_order,
    wanted_events,
)

Protocol: TypeAlias = Literal[
    "temporal", "rolling", "session-events", "leave-one-session-out", "leave-one-item-out", "prefixes"
]

_MOST_VALIDATION_USERS = 10_000
_EVER = int(np.iinfo(np.int64).min)


def _moment(value: object) -> int | str:
    """Read a duration, counted back from the end, or an instant in ISO 8601 (UTC unless it says otherwise)."""
    if isinstance(value, datetime):
        value = value.isoformat()
    try:
        return milliseconds(value)
    except ValueError:
        pass
    try:
        return _iso(_instant(str(value)))
    except ValueError:
        raise ValueError(
            f"must be a duration such as '1d', counted back from the end, or an instant such as "
            f"'2017-10-16T00:00:00Z', got {value!r}"
        ) from None


def _instant(text: str) -> int:
    when = datetime.fromisoformat(text)
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


def _iso(instant: int) -> str:
    return datetime.fromtimestamp(instant / 1000, UTC).isoformat().replace("+00:00", "Z")


Moment = Annotated[int | str, BeforeValidator(_moment)]
"""Milliseconds before the end (`"1d"`), or an instant in ISO 8601."""


class SplitSettings(Settings):
    """How a log is split; settings that the protocol does not read are refused."""

    protocol: Protocol = "temporal"
    """What is asked, and what may be learnt from: see `nextsession.splits`."""
    task: Literal["next-item", "next-session"] = "next-item"
    """Ask for each wanted event, or for the wanted items of each session (`temporal`, `rolling`)."""
    test: Moment = "1d"
    """How long before the end the test begins, or its instant."""
    validation: Moment = 0
    """How long before the test the validation begins, or its instant; 0: no validation."""
    until: Moment = 0
    """Where the log ends: an instant, or so long before its last event; everything later is left out."""
    step: Duration = "1h"  # type: ignore[assignment]
    """Length of a step of the `rolling` protocol."""
    history: Literal["user", "session"] = "user"
    """What a question for the next item may look back on (`temporal`, `rolling`)."""
    longest_history: int | None = Field(default=None, ge=1)
    """Most events of a history, the latest ones; none: all."""
    form: Literal["strict", "paper-like"] = "strict"
    """Of the leave-one-out protocols.  `paper-like`: items that only the answers hold are in the vocabulary, and the
    next item is asked for after the earlier ones of its own session."""
    counted: Literal["training", "everything"] = "training"
    """Of the leave-one-out protocols, for models that count what everybody did before the instant of the question: they
    count events of training alone, or, as a running site would, also those held back; nothing is learnt from these."""
    validation_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the users (`prefixes`: of the sessions) whose last known session or item is kept for validation, at
    most 10,000; 0: no validation."""
    unseen: Literal["miss", "drop"] = "miss"
    """Of `session-events`: items of test sessions that training never saw are misses, or are left out."""
    users: int | None = Field(default=None, ge=1)
    """Ask at most so many users (`session-events`: sessions), drawn at random; none: all."""
    seed: int = Field(default=0, ge=0)
    """Of the draws."""

    @model_validator(mode="after")
    def _all_read(self) -> Self:
        useless = sorted(self.model_fields_set - _READ[self.protocol] - _ALWAYS_READ)
        if useless:
            raise ValueError(f"the protocol {self.protocol!r} does not read {', '.join(useless)}; leave it out")
        if self.step == 0:
            raise ValueError("step must be longer than 0")
        if self.history == "session" and self.task == "next-session":
            raise ValueError("history='session' is for the next item: at the start of a session there is nothing in it")
        return self

    def in_force(self) -> dict[str, Any]:
        """Return what the protocol reads, defaults included, as JSON; `read` gives the same settings back.

        >>> sorted(SplitSettings(protocol="prefixes").in_force())
        ['protocol', 'seed', 'validation_share']
        """
        return self.model_dump(mode="json", include=set(_READ[self.protocol] | _ALWAYS_READ))


_SCANT = 0.1
"""Learning from less than this share of a log is remarked upon."""
_ALWAYS_READ = frozenset({"protocol", "seed"})
_DRAWN = frozenset({"users", "longest_history"})
_INSTANTS = _DRAWN | {"test", "validation", "until"}
_READ: dict[Protocol, frozenset[str]] = {
    "temporal": _INSTANTS | {"task", "history"},
    "rolling": _INSTANTS | {"task", "history", "step"},
    "session-events": _INSTANTS | {"unseen"},
    "leave-one-session-out": _DRAWN | {"form", "counted", "validation_share"},
    "leave-one-item-out": _DRAWN | {"form", "counted", "validation_share"},
    "prefixes": frozenset({"validation_share"}),
}


@dataclass(frozen=True, eq=False)
class Split:
    """What may be learnt from, and what is asked."""

    train: SessionLog
    validation: Questions
    test: Questions
    settings: SplitSettings
    facts: Mapping[str, Any]
    """Counts and instants, for tables and manifests; JSON."""

    @property
    def protocol(self) -> str:
        """The name of the protocol."""
        return self.settings.protocol


def split(log: SessionLog, settings: SplitSettings | None = None, questions: Cases | None = None) -> Split:
    """Split a log as the settings say.

    Args:
        log: All events.
        settings: The protocol and what it reads; a temporal split of the last day by default.
        questions: The prepared questions of a data set, for the protocol `prefixes`.

    Raises:
        DataError: The log has no times, nothing is left to learn from, or there is no question.
    """
    settings = settings or SplitSettings()
    if (questions is not None) != (settings.protocol == "prefixes"):
        raise DataError(
            "The protocol 'prefixes' puts questions that come with a data set, and this one has none."
            if questions is None
            else f"These prepared questions need the protocol 'prefixes', got {settings.protocol!r}."
        )
    if log.n_events == 0:
        raise DataError("A log without events cannot be split.")
    if questions is not None:
        return _prefixes(log, settings, questions)
    if "test" in _READ[settings.protocol]:
        return _by_time(log, settings)
    return _leave_one_out(log, settings)


def split_ready(train: SessionLog, test: SessionLog, settings: SplitSettings | None = None) -> Split:
    """Make a per-event session split of two logs that someone else has split.

    Every session of `test` is asked event by event from its prefix, as a visitor of its own; `train`
    may be in other codes.  Of the settings `unseen`, `longest_history`, `users` and `seed` are read.

    Raises:
        DataError: A log is empty, or there is no question.
    """
    settings = settings or SplitSettings(protocol="session-events")
    known = train.as_sessions().compact()
    asked = _session_events(test.as_sessions(), known, _EVER, settings)
    return _made(known, _nothing, asked, settings, {"fingerprint": _both(train, test)})


# -- by time ------------------------------------------------------------------------------------


def _by_time(log: SessionLog, settings: SplitSettings) -> Split:
    if not log.timed:
        raise DataError(
            f"The protocol {settings.protocol!r} needs the times of events, and of this log only their order is known; "
            "leave-one-session-out, leave-one-item-out and prefixes do without."
        )
    end = _before(settings.until, int(log.times.max()) + 1)
    test_from = _before(settings.test, end)
    learn_to = _before(settings.validation, test_from)
    if not learn_to <= test_from < end:
        raise ConfigError(
            f"validation, test and until must follow one another; they begin at {_iso(learn_to)}, {_iso(test_from)} "
            f"and {_iso(end)}."
        )
    facts: dict[str, Any] = {"validation_from": _iso(learn_to), "test_from": _iso(test_from), "until": _iso(end)}
    known = log.before(learn_to)
    if known.n_events == 0:
        raise DataError(f"No event is earlier than {_iso(learn_to)}: there is nothing to learn from. Shorten the test.")
    if settings.protocol == "session-events":
        known = known.as_sessions()
    known = known.compact()
    there = log.before(end)
    if known.n_events < _SCANT * there.n_events:
        facts["remark"] = (
            f"Only {known.n_events:,} of {there.n_events:,} events are earlier than {_iso(learn_to)} and learnt from; "
            "a shorter split.test (and split.validation) leaves more."
        )
    asked = _asked_since(there, known, test_from, settings)
    validation: Questions = _nothing
    if learn_to < test_from:
        validation = _asked_since(log.before(test_from), known, learn_to, settings)
    test: Questions = asked
    if settings.protocol == "rolling":
        test = Replay(_in_steps(asked, test_from, settings.step), learn_to, test_from, settings.step)
    return _made(known, validation, test, settings, facts | {"fingerprint": fingerprint(log)})


def _before(moment: int | str, end: int) -> int:
    return end - moment if isinstance(moment, int) else _instant(moment)


def _asked_since(log: SessionLog, known: SessionLog, since: int, settings: SplitSettings) -> Plan:
    if settings.protocol == "session-events":
        return _session_events(log.as_sessions(), known, since, settings)
    plan = next_session(log, since) if settings.task == "next-session" else next_item(log, since, settings.history)
    return _limited(plan, settings)


def _session_events(log: SessionLog, known: SessionLog, since: int, settings: SplitSettings) -> Plan:
    """Ask for every wanted event but the first of each session begun at or after `since`."""
    if settings.unseen == "drop":
        log = log.recode(known.vocabulary)
    later = np.repeat(log.session_starts >= since, np.diff(log.session_offsets))
    later[log.session_offsets[:-1]] = False
    events = np.flatnonzero(later & (log.labels == 1))
    return _limited(item_questions(log, None, events, "session"), settings)


def _limited(plan: Plan, settings: SplitSettings) -> Plan:
    return plan.sampled(settings.users, settings.seed).recent(settings.longest_history)


def _in_steps(plan: Plan, since: int, step: int) -> Plan:
    return plan.take(np.argsort((plan.asked_at - since) // step, kind="stable"))


# -- leave one out ------------------------------------------------------------------------------


def _leave_one_out(log: SessionLog, settings: SplitSettings) -> Split:
    """Ask for the last session or item of every user that has something before it."""
    if settings.counted == "everything" and not log.timed:
        raise DataError(
            "counted = 'everything' needs the times of events, to tell which of them happened before a question, and "
            "of this log only their order is known; leave it out."
        )
    order = time_order(log)
    asker = _ask_sessions if settings.protocol == "leave-one-session-out" else _ask_items
    last, second_last = asker(log, order, settings)
    first_out = np.full(len(log), log.n_events)  # of each user, the first event not learnt from
    first_out[last.groups] = last.asked_from
    validation: Questions = _nothing
    if settings.validation_share > 0:
        count = min(_MOST_VALIDATION_USERS, round(settings.validation_share * len(second_last)))
        chosen = np.random.default_rng(settings.seed).permutation(len(second_last))[:count]
        plan = second_last.take(np.sort(chosen))
        first_out[plan.groups] = plan.asked_from
        validation = plan.recent(settings.longest_history)
    if settings.protocol == "leave-one-session-out":
        session = log.sessions_of(first_out)  # one past the last for users of whom all is learnt
        learnt = (np.arange(log.n_sessions) < session[log.user_of_session])[log.session_of_event]
    else:
        learnt = _earlier(log, order, first_out)
    train = log.events(learnt)
    if settings.form == "strict":
        train = train.compact()
    asked = _limited(last, settings)
    test = Told(asked, log.events(~learnt)) if settings.counted == "everything" else asked
    return _made(train, validation, test, settings, {"fingerprint": fingerprint(log)})


def _earlier(log: SessionLog, order: NDArray[np.int64] | None, first_out: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which events come before one event of their user, given for each user; its number may be `N`: all do."""
    every = np.arange(log.n_events)
    bounds = np.full(len(first_out), log.n_events)
    some = first_out < log.n_events
    bounds[some] = places(order, first_out[some])
    earlier: NDArray[np.bool_] = places(order, every) < np.repeat(bounds, np.diff(log.event_offsets))
    return earlier


def _ask_sessions(log: SessionLog, order: NDArray[np.int64] | None, settings: SplitSettings) -> tuple[Plan, Plan]:
    wanted = np.flatnonzero(wanted_events(log) > 0)
    place = _from_last(log.user_of_session[wanted])
    plans = [session_questions(log, order, wanted[place == back]) for back in (0, 1)]
    last, second = (plan.take(np.flatnonzero(plan.seen_to > plan.seen_from)) for plan in plans)
    return last, second.take(np.flatnonzero(np.isin(second.groups, last.groups)))


def _ask_items(log: SessionLog, order: NDArray[np.int64] | None, settings: SplitSettings) -> tuple[Plan, Plan]:
    by_time = np.flatnonzero(log.labels == 1) if order is None else order[log.labels[order] == 1]
    users = log.user_of_session[log.sessions_of(by_time)]
    enough = np.bincount(users, minlength=len(log))[users] >= 3
    by_time, users = by_time[enough], users[enough]
    place = _from_last(users)
    plans = []
    for back in (0, 1):
        plan = item_questions(log, order, by_time[place == back], "user")
        if settings.form == "strict":
            begins = plan.asked_from - plan.positions
            plan = replace(
                plan, seen_to=places(order, begins), asked_at=log.times[begins], positions=np.zeros(len(plan), np.int64)
            )
        plans.append(plan.take(np.flatnonzero(plan.seen_to > plan.seen_from)))
    return plans[0], plans[1].take(np.flatnonzero(np.isin(plans[1].groups, plans[0].groups)))


def _from_last(users: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how far each entry is from the last of its user; entries of a user stand together."""
    ends = np.searchsorted(users, users, side="right")
    return ends - 1 - np.arange(len(users))


# -- prepared questions -------------------------------------------------------------------------


def _prefixes(log: SessionLog, settings: SplitSettings, questions: Cases) -> Split:
    train, validation = log, _nothing
    if settings.validation_share > 0:
        count = min(_MOST_VALIDATION_USERS, round(settings.validation_share * log.n_sessions))
        chosen = np.zeros(log.n_sessions, bool)
        chosen[np.random.default_rng(settings.seed).permutation(log.n_sessions)[:count]] = True
        train = log.sessions(~chosen)
        validation = _session_events(
            log.sessions(chosen).as_sessions(),
            train,
            _EVER,
            settings,
        )
    train = train.compact()
    return _made(train, validation, Given(questions), settings, {"fingerprint": _both(log, questions.histories)})


# -- together -----------------------------------------------------------------------------------


def _nothing() -> Iterator[Cases]:
    return iter(())


def _made(
    train: SessionLog, validation: Questions, test: Questions, settings: SplitSettings, facts: Mapping[str, Any]
) -> Split:
    counts = {
        "train": {"users": len(train), "sessions": train.n_sessions, "events": train.n_events, "items": train.n_items},
        "validation_questions": _count(validation),
        "test_questions": _count(test),
    }
    if train.n_events == 0:
        raise DataError("Nothing is left to learn from; leave less for the test.")
    if counts["test_questions"] == 0:
        raise DataError(f"The protocol {settings.protocol!r} finds no question in this log; leave more for the test.")
    return Split(train, validation, test, settings, {"protocol": settings.protocol, **facts, **counts})


def _count(questions: Callable[[], Iterator[Cases]]) -> int:
    return len(questions) if isinstance(questions, Plan | Replay | Told | Given) else 0


def _both(log: SessionLog, asked: SessionLog) -> str:
    return fingerprint(log) + fingerprint(asked)


def fingerprint(log: SessionLog) -> str:
    """Return 16 hexadecimal digits that depend on every event of the log and on the ids of its items."""
    digest = hashlib.blake2b(digest_size=8)
    for column in (log.items, log.times, log.session_offsets, log.user_offsets, log.labels):
        digest.update(np.ascontiguousarray(column).data)
    digest.update("\n".join(map(str, log.vocabulary.ids.tolist())).encode())
    return digest.hexdigest()
