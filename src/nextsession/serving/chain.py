"""The chain: from what a model listed to a list of `k`, source by source, and where each item came from.

```
 model ──► fallback (another model, if there is one) ──► recent ──► usual ──► any
```
"""

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.errors import DataError
from nextsession.serving.arms import Arms
from nextsession.serving.histories import History
from nextsession.serving.questions import Listed, Question, Source
from nextsession.serving.recent import Recent
from nextsession.serving.served import Served

log = logging.getLogger(__name__)


class Chain:
    """The sources of a list, one after another; the limits of the question hold for all of them."""

    def __init__(self, arms: Arms, recent: Recent) -> None:
        """Take the models, and what many want."""
        self._arms = arms
        self._recent = recent

    @property
    def order(self) -> tuple[Source, ...]:
        """The sources in the order in which they are asked."""
        return ("model", *(("fallback",) if self._arms.fallback is not None else ()), "recent", "usual", "any")

    def filled(
        self,
        listed: Sequence[Listed],
        served: Served,
        history: History,
        question: Question,
        now: int,
        allowed: NDArray[np.bool_] | None,
        degraded: list[str],
    ) -> list[Listed]:
        """Return the list that a model gave, and after it what the other sources have, until there are `k`."""
        full = list(listed)
        if len(full) >= question.k:
            return full
        out = {one.item for one in full} | barred(served, history, question)
        for source, items in self._others(served, history, question, now, allowed, len(out), degraded):
            for item in items:
                if len(full) >= question.k:
                    return full
                if item in out or not may(served, item, question, allowed):
                    continue
                out.add(item)
                full.append(Listed(item, served.catalogue.title(served.catalogue.numbers([item])[0]), None, source))
        return full

    def for_nobody(self, served: Served, k: int) -> dict[str, Source]:
        """Return `k` items for somebody who has done nothing yet, each with its source, in the order of a shelf."""
        catalogue = served.catalogue
        anything = catalogue.texts(catalogue.any_of(None, k))
        sources: tuple[tuple[Source, Sequence[str]], ...] = (
            ("recent", self._recent.items),
            ("usual", served.usual),
            ("any", anything),
        )
        found: dict[str, Source] = {}
        for source, items in sources:
            for item in items[:k]:
                found.setdefault(item, source)
        return dict(list(found.items())[:k])

    def _others(
        self,
        served: Served,
        history: History,
        question: Question,
        now: int,
        allowed: NDArray[np.bool_] | None,
        more: int,
        degraded: list[str],
    ) -> Iterator[tuple[Source, Sequence[str]]]:
        """Give the sources after the model, each only when it is its turn."""
        fallback = self._arms.fallback
        if fallback is not None and fallback.served is not served:
            yield "fallback", _second(fallback.served, history, question, now, question.k + more, degraded)
        yield "recent", self._recent.items
        yield "usual", served.usual
        yield "any", served.catalogue.texts(served.catalogue.any_of(allowed, question.k + more))


def _second(
    served: Served, history: History, question: Question, now: int, k: int, degraded: list[str]
) -> Sequence[str]:
    """Return what another model, with items of its own, lists for the same events."""
    catalogue = served.catalogue
    try:
        try:
            allowed = catalogue.allowed(question.allow, question.where)
        except DataError:  # of features that the items of this model do not have: those of the arm decide
            allowed = catalogue.allowed(question.allow, None)
        again = served.history(tuple(history.events))
        top = served.top(again, now, k, again.limits(question.exclude, catalogue.numbers(question.deny), allowed))
        return catalogue.texts(top.items[0][top.items[0] >= 0])
    except Exception:  # whatever a model does, the list must go out
        log.exception("The model %s, version %s, failed.", served.model.name, served.version)
        degraded.append("fallback")
        return ()


def barred(served: Served, history: History, question: Question) -> set[str]:
    """Return the ids of what the list must not hold, known to the model or not."""
    out = set(question.deny) | served.catalogue.out_of_stock
    out |= {history.events[place].item for place in history.barred(question.exclude)}
    return out if question.item is None else out | {question.item}


def may(served: Served, item: str, question: Question, allowed: NDArray[np.bool_] | None) -> bool:
    """Say whether the filters let an item through; of one unknown to the model no features are known."""
    code = served.catalogue.numbers([item])[0]
    if code >= 0:
        return allowed is None or bool(allowed[code])
    return not question.where and (question.allow is None or item in question.allow)


def entries(
    served: Served, codes: NDArray[np.integer[Any]], scores: NDArray[np.float32], source: Source
) -> tuple[Listed, ...]:
    """Return items of a model with their titles and scores."""
    catalogue = served.catalogue
    texts, titles, values = catalogue.texts(codes), catalogue.titles(codes.tolist()), scores.tolist()
    return tuple(
        Listed(item, title, value if math.isfinite(value) else None, source)
        for item, title, value in zip(texts, titles, values, strict=False)
    )
