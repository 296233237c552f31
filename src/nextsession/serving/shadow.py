"""Shadows: models that are asked what others were asked, after the answer has gone out; nobody sees their lists.

```
 answer sent ──► queue (bounded) ──► one thread of low claim ──► list of the shadow ──► log, marked as nobody's
                    └── full: dropped and counted                └── overlap with what was shown, time, failures
```
"""

import logging
import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from time import perf_counter
from typing import NamedTuple

from nextsession.serving.arms import Arm, Arms
from nextsession.serving.chain import Chain, entries
from nextsession.serving.events import Kept, Shown
from nextsession.serving.metrics import EDGES
from nextsession.serving.questions import Answer, Question
from nextsession.serving.store import Store

log = logging.getLogger(__name__)

MOST = 256
"""Questions that wait; more are dropped."""
CLAIM = 0.2
"""Share of the time of one core that the thread takes at most: it rests four times as long as it worked."""


class Copy(NamedTuple):
    """A question that was answered."""

    question: Question
    events: Sequence[Kept]
    """What the answer rested on, oldest first."""
    now: int
    answer: Answer


@dataclass
class Tally:
    """What is known of one shadow since the process began."""

    answers: int = 0
    failures: int = 0
    dropped: int = 0
    overlap: float = 0.0
    """Sum over its lists of the share of the served list that is in the shadow's, too."""
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))
    """Its lists by how long they took, within the edges of all histograms."""


class Shadows:
    """Asks the shadows among the arms; whatever they do, no answer is later or other for it."""

    def __init__(self, arms: Arms, chain: Chain, store: Store, *, most: int = MOST, claim: float = CLAIM) -> None:
        """Take what an engine has; the thread begins with the first question."""
        self._arms, self._chain, self._store = arms, chain, store
        self._most, self._claim = most, claim
        self._queue: SimpleQueue[Copy | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._warned: set[str] = set()
        self.tallies: dict[str, Tally] = {}

    def offer(self, copy: Copy) -> None:
        """Take a question that has been answered, if there are shadows and not too much waits."""
        shadows = self._arms.shadows
        if not shadows or self._stopped.is_set():
            return
        if self._queue.qsize() >= self._most:
            for arm in shadows:
                self._tally(arm).dropped += 1
            return
        self._queue.put(copy)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shadows", daemon=True)
            self._thread.start()

    @property
    def waiting(self) -> int:
        """Questions that wait for the shadows."""
        return self._queue.qsize()

    def close(self) -> None:
        """End the thread, at the latest when the list it is at is done; what waits is dropped."""
        self._stopped.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(5)

    # -- inside: the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        while (copy := self._queue.get()) is not None and not self._stopped.is_set():
            began = perf_counter()
            for arm in self._arms.shadows:
                self._ask(arm, copy)
            self._stopped.wait((perf_counter() - began) * (1 / self._claim - 1))

    def _ask(self, arm: Arm, copy: Copy) -> None:
        tally, began = self._tally(arm), perf_counter()
        try:
            items = self._listed(arm, copy)
        except Exception as error:  # a shadow may fail as it likes; that it did is what is to be known
            tally.failures += 1
            if arm.served.version not in self._warned:
                self._warned.add(arm.served.version)
                log.warning("The shadow %s, version %s, failed: %s", arm.name, arm.served.version, error)
            return
        spent = perf_counter() - began
        tally.buckets[bisect_left(EDGES, spent)] += 1
        tally.seconds += spent
        served = {one.item for one in copy.answer.items if one.source != "explore"}
        tally.overlap += len(served.intersection(items)) / len(served) if served else float(not items)
        tally.answers += 1
        question, answer = copy.question, copy.answer
        if question.visitor is not None and question.recorded:
            version = arm.served.version
            shown = Shown(answer.request, question.visitor, copy.now, arm.name, version, items, shadow=True)
            self._store.submit_shown(shown)

    def _listed(self, arm: Arm, copy: Copy) -> tuple[str, ...]:
        """Return the list that would have been shown."""
        served, question = arm.served, copy.question
        history = served.history(tuple(copy.events))
        allowed = served.catalogue.allowed(question.allow, question.where)
        limits = history.limits(question.exclude, served.catalogue.numbers(question.deny), allowed)
        top = served.top(history, copy.now, question.k, limits)
        found = top.items[0] >= 0
        named = entries(served, top.items[0][found], top.scores[0][found], "model")
        listed = self._chain.filled(named, served, history, question, copy.now, allowed, [])
        return tuple(one.item for one in listed)

    def _tally(self, arm: Arm) -> Tally:
        return self.tallies.setdefault(arm.name, Tally())
