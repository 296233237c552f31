"""The explorer: how a model came to its list for one history, step by step, in numbers that a page can draw.

It answers for the sessions of a visitor, or for sessions that somebody made up: so one can see what
changes when an event is left out, moved, or a session is broken in two.  Nothing is stored.
"""

import logging
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from nextsession.scores import Limits, Scores, Targets
from nextsession.serving.engine import Engine
from nextsession.serving.events import Kept
from nextsession.serving.histories import History
from nextsession.serving.insides import Insides, insides
from nextsession.serving.served import Served
from nextsession.serving.wire import ItemId, Text, VisitorId

log = logging.getLogger(__name__)

READ = 50
"""Latest events that are looked at: more than a page can show."""
_STEPS = 12
_RANKS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
_SECOND = 1000

MadeUp = Annotated[list[Annotated[list[ItemId], Meta(max_length=READ)]], Meta(max_length=READ)]


class ExplorationMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose history to look at, or a history that is made up, and by which model."""

    visitor: VisitorId | None = None
    sessions: MadeUp | None = None
    """Sessions in place of the visitor's, oldest first."""
    arm: Text | None = None
    k: Annotated[int, Meta(ge=1, le=50)] = 10
    temperature: Annotated[float, Meta(ge=0.05, le=20)] = 1.0


class Read(msgspec.Struct, frozen=True):
    """One event of the history."""

    item: str
    title: str
    time: int
    session: int
    known: bool
    given: bool
    """Is the model given it?  Not if it does not know the item, or if the event was no wanted one and it reads none."""


class Likely(msgspec.Struct, frozen=True):
    """An item and how likely it is."""

    item: str
    title: str
    score: float
    probability: float


class Softmax(msgspec.Struct, frozen=True):
    """The scores of all items as shares of one."""

    kind: Literal["softmax", "share"]
    """From logits by the softmax; or, for models that count, each score's share of their sum."""
    items: int
    top: tuple[Likely, ...]
    choices: float
    """Between how many equally likely items the model would be as undecided: the exponential of the entropy."""
    reached: tuple[tuple[int, float], ...]
    """Of the first so many items, how much of the whole they hold."""


class Named(msgspec.Struct, frozen=True):
    """An item."""

    item: str
    title: str


class Step(msgspec.Struct, frozen=True):
    """What the model held likely after some events, and where it had what came then."""

    after: int
    """The place of the event after which it was asked."""
    top: tuple[Named, ...]
    place: int | None
    """The place of the next event's item in the list; null after the last event, or if it was not listed."""


class Exploration(msgspec.Struct, frozen=True):
    """A look inside."""

    arm: str
    model: str
    version: str
    gap: int
    """The silence (ms) that ends a session."""
    events: tuple[Read, ...]
    softmax: Softmax
    steps: tuple[Step, ...]
    insides: Insides


def explore(engine: Engine, message: ExplorationMessage, now: int) -> Exploration:
    """Look inside the model of an arm while it reads a history.

    Raises:
        UnknownNameError: There is no such arm.
        StoreError: The history cannot be read.
    """
    visitor = None if message.visitor is None else str(message.visitor)
    arm = engine.arms.of(visitor or "") if message.arm is None else engine.arms.named(str(message.arm))
    served = arm.served
    if message.sessions is not None:
        events = made_up([[str(item) for item in one] for one in message.sessions], served.gap, now)
    else:
        events = () if visitor is None else engine.store.record(visitor, now).events
    history = served.history(events[-READ:])
    given = history.given
    prefixes = [given[:n] for n in range(max(1, len(given) - _STEPS + 1), len(given) + 1)] or [[]]
    ends = [max(now, history.asked_after)] * len(prefixes)
    for row, prefix in enumerate(prefixes[:-1]):
        ends[row] = history.events[prefix[-1]].time + 1  # as if asked just after the event
    instants = np.array(ends, np.int64)
    scores = served.model.scores(history.log_of(prefixes), asked_at=instants)
    last = scores if len(prefixes) == 1 else served.model.scores(history.log(), asked_at=instants[-1:])
    return Exploration(
        arm=arm.name,
        model=served.model.name,
        version=served.version,
        gap=served.gap,
        events=_read(served, history),
        softmax=softmax(served, last, message.k, message.temperature),
        steps=_steps(served, history, prefixes, scores) if given else (),
        insides=_insides(served, history, instants[-1:]),
    )


def made_up(sessions: Sequence[Sequence[str]], gap: int, now: int) -> tuple[Kept, ...]:
    """Return events of sessions that never were: a second apart within, a little more than the gap between.

    >>> [(one.item, one.time) for one in made_up([["a", "b"], ["c"]], gap=60_000, now=100_000)]
    [('a', 38000), ('b', 39000), ('c', 100000)]
    """
    events, time, items = [], now, [list(one) for one in sessions if one]
    for place in range(len(items) - 1, -1, -1):
        for item in reversed(items[place]):
            events.append(Kept(max(time, 0), 0, 0, item, "click", 1))
            time -= _SECOND
        time -= gap
    return tuple(msgspec.structs.replace(one, seq=seq, key=seq) for seq, one in enumerate(reversed(events)))


def softmax(served: Served, scores: Scores, k: int, temperature: float) -> Softmax:
    """Turn the scores of one question into shares of one."""
    row = scores.dense()[0].astype(np.float64)
    kind, shares = shares_of(row, temperature)
    order = np.argsort(-shares, kind="stable")
    summed = np.cumsum(shares[order])
    some = shares[shares > 0]
    entropy = float(-(some * np.log(some)).sum())
    ranks = [n for n in _RANKS if n < len(row)]
    codes = order[:k][np.isfinite(row[order[:k]])]
    return Softmax(
        kind=kind,
        items=len(row),
        top=_likely(served, codes, row[codes], shares[codes]),
        choices=round(float(np.exp(entropy)), 2) if len(some) else 0.0,
        reached=tuple((n, round(float(summed[n - 1]), 6)) for n in [*ranks, len(row)]),
    )


def shares_of(
    scores: NDArray[np.float64], temperature: float
) -> tuple[Literal["softmax", "share"], NDArray[np.float64]]:
    """Return how a row of scores becomes shares of one, and the shares.

    Scores of models that count are at least 0 and absent for most items: they are divided by their sum.
    Anything else is taken for logits.

    >>> shares_of(np.array([0.0, 0.0]), 1.0)[1], shares_of(np.array([3.0, 1.0, -np.inf]), 1.0)[1]
    (array([0., 0.]), array([0.75, 0.25, 0.  ]))
    """
    known = np.isfinite(scores)
    counted = (not known.all() and bool(np.all(scores[known] >= 0))) or bool(np.all(scores == 0))
    if counted:
        values = np.where(known, scores, 0.0) ** (1 / temperature)
        total = values.sum()
        return "share", values / total if total > 0 else values
    logits = np.where(known, scores, -np.inf) / temperature
    values = np.exp(logits - logits.max())
    return "softmax", values / values.sum()


def _likely(
    served: Served, codes: NDArray[np.int64], scores: NDArray[np.float64], shares: NDArray[np.float64]
) -> tuple[Likely, ...]:
    return tuple(
        Likely(one.item, one.title, round(score, 4), round(share, 8))
        for one, score, share in zip(
            _named(served, codes.astype(np.int32)), scores.tolist(), shares.tolist(), strict=True
        )
    )


def _read(served: Served, history: History) -> tuple[Read, ...]:
    given = set(history.given)
    return tuple(
        Read(event.item, served.catalogue.title(code), event.time, session, code >= 0, place in given)
        for place, (event, code, session) in enumerate(
            zip(history.events, history.codes, history.sessions, strict=True)
        )
    )


def _steps(served: Served, history: History, prefixes: Sequence[Sequence[int]], scores: Scores) -> tuple[Step, ...]:
    """Say after each event what was held likely, leaving out nothing: what was seen may come again."""
    top = scores.top(3)
    wanted = [history.codes[following[-1]] for following in prefixes[1:]]
    offsets = np.minimum(np.arange(len(prefixes) + 1), len(wanted))
    counts = scores.ranks(Targets(offsets, np.array(wanted, np.int32)), Limits.none(len(prefixes)))
    places = [place or None for place in np.where(counts.equal > 0, counts.greater + 1, 0).tolist()]
    return tuple(
        Step(prefix[-1], _named(served, codes[codes >= 0]), place)
        for prefix, codes, place in zip(prefixes, top.items, [*places, None], strict=True)
    )


def _named(served: Served, codes: NDArray[np.int32]) -> tuple[Named, ...]:
    return tuple(map(Named, served.catalogue.texts(codes), served.catalogue.titles(codes.tolist())))


def _insides(served: Served, history: History, asked_at: NDArray[np.int64]) -> Insides:
    try:
        return insides(served.model, history.log(), asked_at)
    except Exception as error:  # a look inside is a courtesy; the rest of the answer stands without it
        log.warning("One cannot look inside %s: %s", served.model.name, error)
        return Insides(nothing="network")
