"""Reasons: which events of a history did how much for the items that a model listed."""

import logging
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from nextsession.scores import Limits
from nextsession.serving.histories import History
from nextsession.serving.questions import Answer, Because, Seen
from nextsession.serving.served import Served

log = logging.getLogger(__name__)

EXPLAINED = 20
"""Latest events whose weight is looked for."""


def explained(answer: Answer, served: Served, history: History, now: int, limits: Limits) -> Answer:
    """Say which events did how much for the items that the model listed."""
    named = [one.item for one in answer.items if one.source == "model"]
    codes = served.catalogue.codes(named)
    try:
        tried, places = served.reasons(history, now, codes, limits, EXPLAINED)
    except Exception as error:  # a reason is no reason to withhold the answer
        log.warning("An answer could not be explained: %s", error)
        return msgspec.structs.replace(answer, history=tuple(_seen(served, history, {})))
    weights = shares(places, len(served.catalogue))
    order = np.argsort(-weights, axis=0, kind="stable")
    because = {
        item: tuple(
            Because(int(tried[e]), round(float(weights[e, i]), 4), int(places[1 + e, i]) or None)
            for e in order[:3, i].tolist()
            if weights[e, i] > 0
        )
        for i, item in enumerate(named)
    }
    means = weights.mean(axis=1).tolist() if len(named) else [0.0] * len(tried)
    mean = dict(zip(tried.tolist(), means, strict=True))
    items = tuple(msgspec.structs.replace(one, because=because.get(one.item, ())) for one in answer.items)
    return msgspec.structs.replace(answer, items=items, history=tuple(_seen(served, history, mean)))


def shares(places: NDArray[np.int64], n_items: int) -> NDArray[np.float64]:
    """Return each event's share of what the events together did for each item, `(n, items)`.

    What an event did for an item is the logarithm of how many times further down it would stand
    without it; what pushed it down did nothing for it.

    >>> shares(np.array([[1, 2], [4, 1], [16, 2]]), 100)
    array([[0.33333333, 0.        ],
           [0.66666667, 0.        ]])
    """
    ranks = np.where(places > 0, places, n_items + 1).astype(np.float64)
    effect = np.maximum(np.log(ranks[1:] / ranks[:1]), 0.0)
    total = effect.sum(axis=0)
    return effect / np.where(total > 0, total, 1.0)


def _seen(served: Served, history: History, weights: dict[int, float]) -> Iterator[Seen]:
    for place, (event, code, session) in enumerate(zip(history.events, history.codes, history.sessions, strict=True)):
        yield Seen(
            event.item,
            served.catalogue.title(code),
            event.time,
            event.action,
            event.label,
            session,
            code >= 0,
            round(weights.get(place, 0.0), 4),
        )
