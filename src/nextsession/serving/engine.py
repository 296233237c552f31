"""Engine: everything a server does, without HTTP and without a clock.

```
 question ──► arm (by visitor) ──► history: record + event + item ──► model ──┐
                                                                              ▼
                                 log ◄── impression ◄── list ◄── chain of other sources
```

A list is never empty for want of a model or of a history: what failed is named in `degraded`, and
where each item came from in its `source`.
"""

import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter, thread_time

import msgspec
import numpy as np
from numpy.typing import NDArray

from nextsession.errors import StoreError, UnknownNameError
from nextsession.scores import Limits, TopK
from nextsession.serving.arms import Arm, Arms
from nextsession.serving.chain import Chain, entries
from nextsession.serving.events import NOTHING, Event, Kept, Outcome, Rules, Shown, kept, with_event
from nextsession.serving.exploring import Exploring
from nextsession.serving.histories import History
from nextsession.serving.past import Past
from nextsession.serving.questions import Answer, Question, Similar
from nextsession.serving.reasons import explained
from nextsession.serving.recent import Recent
from nextsession.serving.served import Served
from nextsession.serving.shadow import Copy, Shadows
from nextsession.serving.store import Store

log = logging.getLogger(__name__)

_STOCK = "out of stock"
_LAST = 2**62  # the place of an event that is not in the log yet


class Asked:
    """An answer, and the event that came with the question while it is on its way to the disk."""

    def __init__(
        self,
        question: Question,
        now: int,
        answer: Answer,
        recorded: "Future[list[Outcome]] | None",
        history: History,
        cpu: dict[str, float],
    ) -> None:
        """Take them, and the CPU-seconds that stages took."""
        self.copy = Copy(question, history.events, now, answer)
        """For the shadows."""
        self.answer, self.cpu = answer, cpu
        self.recorded = recorded
        self.unknown = history.codes.count(-1)
        """Events of the history whose items the model does not know."""
        self.known = len(history.events) - self.unknown

    def settled(self, outcomes: list[Outcome] | None) -> Answer:
        """Return the answer with what became of the event; None: it could not be made durable."""
        if self.recorded is None:
            return self.answer
        if outcomes is None:
            degraded = tuple(dict.fromkeys([*self.answer.degraded, "store"]))
            return msgspec.structs.replace(self.answer, degraded=degraded)
        return msgspec.structs.replace(self.answer, recorded=outcomes[0])


@dataclass(eq=False, slots=True)
class _Begun:
    """A question that is being answered."""

    question: Question
    now: int
    request: str
    arm: Arm
    served: Served
    """The version that answers, whatever is swapped meanwhile."""
    history: History
    limits: Limits
    degraded: list[str]
    recorded: "Future[list[Outcome]] | None"
    top: TopK = field(init=False)
    read: float = field(init=False)
    took: dict[str, float] = field(init=False)
    cpu: dict[str, float] = field(init=False)


class Engine:
    """Models, a store, and what to do when one of them fails."""

    def __init__(
        self,
        arms: Arms,
        store: Store,
        *,
        recent: Recent | None = None,
        past: Past | None = None,
        explore: float = 0.0,
    ) -> None:
        """Take what was loaded and opened, what visitors did before, and the share of places to explore with."""
        self.past = past
        self.arms = arms
        self.store = store
        self.recent = recent or Recent()
        self.chain = Chain(arms, self.recent)
        self.exploring = Exploring(explore)
        self.shadows = Shadows(arms, self.chain, store)
        self._process, self._count = secrets.token_urlsafe(6), count()
        self._stock: str | None = None
        self._ever: dict[str, NDArray[np.bool_]] = {}  # by artifact: which items have been listed
        self._alone = Rules(ttl=store.rules.ttl, keep=store.rules.keep)

    # -- events ---------------------------------------------------------------------------------

    def record(self, events: Sequence[Event], now: int) -> "Future[list[Outcome]]":
        """Record events; done when they are durable.

        Raises:
            StoreError: Too much waits to be written.
        """
        return self.store.submit(events, now)

    def refresh(self, now: int) -> None:
        """Learn what other workers have done: what many want, what is out of stock.  Call it every second or so."""
        while self.recent.follow(self.store, now):
            pass
        self.exploring.follow(self.store, self._all_served())
        self._restocked()

    def _restocked(self) -> None:
        noted = self.store.noted(_STOCK)
        if noted != self._stock or any(self._is_stale(served) for served in self._all_served()):
            self._stock = noted
            for served in self._all_served():
                served.catalogue.out_of_stock = self.out_of_stock

    @property
    def out_of_stock(self) -> frozenset[str]:
        """Ids of what nobody may get now."""
        return frozenset(() if self._stock is None else msgspec.json.decode(self._stock, type=list[str]))

    def restock(self, out: Iterable[str], back: Iterable[str]) -> frozenset[str]:
        """Say what is out of stock and what is there again; return all that is out of stock."""
        noted = self.store.noted(_STOCK)
        known = set(() if noted is None else msgspec.json.decode(noted, type=list[str]))
        after = (known | set(out)) - set(back)
        self.store.note(_STOCK, msgspec.json.encode(sorted(after)).decode())
        self._restocked()
        return frozenset(after)

    def _all_served(self) -> Iterator[Served]:
        return (arm.served for arm in self.arms)

    def _is_stale(self, served: Served) -> bool:
        return served.catalogue.out_of_stock != self.out_of_stock

    # -- answers --------------------------------------------------------------------------------

    def recommend(self, question: Question, now: int) -> Answer:
        """Answer, and wait until the event that came with the question is durable."""
        asked = self.ask(question, now)
        answer = asked.answer
        if asked.recorded is not None:
            try:
                answer = asked.settled(asked.recorded.result())
            except (StoreError, NotInTime):
                answer = asked.settled(None)
        self.answered(asked)
        return answer

    def answered(self, asked: Asked) -> None:
        """Let the shadows have the question; call it when the answer has gone out."""
        if asked.copy.question.arm is None:
            self.shadows.offer(asked.copy)

    def close(self) -> None:
        """End what works beside the answers, make everything durable, and let go of the store."""
        self.shadows.close()
        self.store.close()

    def ask(self, question: Question, now: int) -> Asked:
        """Answer at once; the event is on its way.

        Raises:
            UnknownNameError: There is no such arm.
            DataError: A filter names a feature that items do not have.
        """
        one = self._begun(question, now)
        self._list([one])
        return self._finished(one)

    def ask_all(self, questions: Sequence[tuple[Question, int]]) -> list[Asked | Exception]:
        """Answer questions that came at one moment, each as `ask` would; in place of an answer, what it would raise.

        Their models are asked once for all of them.
        """
        begun: list[_Begun | Exception] = []
        for question, now in questions:
            try:
                begun.append(self._begun(question, now))
            except Exception as error:  # theirs who asked: the others get their answers
                begun.append(error)
        self._list([one for one in begun if isinstance(one, _Begun)])
        answers: list[Asked | Exception] = []
        for one in begun:
            try:
                answers.append(self._finished(one) if isinstance(one, _Begun) else one)
            except Exception as error:
                answers.append(error)
        return answers

    def _begun(self, question: Question, now: int) -> "_Begun":
        """Record the event that came with a question, and find what the answer rests on."""
        started = thread_time()
        name = f"{self._process}{next(self._count):x}"
        arm = self.arms.named(question.arm) if question.arm is not None else self.arms.of(question.visitor or name)
        degraded: list[str] = []
        recorded = self._submitted(question, now, degraded)
        submitted, began = thread_time(), perf_counter()
        served = arm.served
        history = served.history(self._events(question, now, degraded))
        allowed = served.catalogue.allowed(question.allow, question.where)
        limits = history.limits(question.exclude, served.catalogue.numbers(question.deny), allowed)
        one = _Begun(question, now, f"{arm.name}.{name}", arm, served, history, limits, degraded, recorded)
        one.read = perf_counter()
        one.took = {"history": 1000 * (one.read - began)}
        one.cpu = {"history": thread_time() - submitted, "list": submitted - started}
        return one

    def _list(self, some: "Sequence[_Begun]") -> None:
        """Let models list the items of questions; those of one model, with the same filters, at once."""
        groups: dict[tuple[int, int], list[_Begun]] = {}
        for one in some:
            groups.setdefault((id(one.served), id(one.limits.allowed)), []).append(one)
        for group in groups.values():
            started = thread_time()
            try:
                tops = group[0].served.tops([(one.history, one.now, one.question.k, one.limits) for one in group])
            except Exception:  # whatever a model does, the lists must go out
                if len(group) > 1:
                    for one in group:
                        self._list([one])
                    continue
                model, version = group[0].served.model.name, group[0].served.version
                log.exception("The model %s, version %s, failed.", model, version)
                group[0].degraded.append("model")
                tops = [TopK(np.zeros((1, 0), np.int32), np.zeros((1, 0), np.float32))]
            spent = (thread_time() - started) / len(group)
            for one, top in zip(group, tops, strict=True):
                one.top, one.cpu["model"] = top, spent

    def _finished(self, one: "_Begun") -> Asked:
        """Return the answer: the list of the model, filled from other sources."""
        started = thread_time()
        question, now, served, history, degraded = one.question, one.now, one.served, one.history, one.degraded
        there = one.top.items[0] >= 0
        codes = one.top.items[0][there].astype(np.intp)  # numpy looks up with others by a longer way
        scores = one.top.scores[0][there]
        named = entries(served, codes, scores, "model")
        listed = self.chain.filled(named, served, history, question, now, one.limits.allowed, degraded)
        propensities: dict[str, float] = {}
        if question.recorded:  # what is tried out must be noted
            listed, propensities = self.exploring.explored(
                listed, served, history, question, one.limits.allowed, one.request
            )
        self._cover(served)[codes] = True
        modelled = perf_counter()
        one.took["model"] = 1000 * (modelled - one.read)
        answer = Answer(
            request=one.request,
            arm=one.arm.name,
            model=served.model.name,
            version=served.version,
            items=tuple(listed),
            degraded=tuple(dict.fromkeys(degraded)),
            took=one.took,
        )
        if question.explain:
            answer = explained(answer, served, history, now, one.limits)
            one.took["explain"] = 1000 * (perf_counter() - modelled)
        if question.visitor is not None and question.recorded:
            items = tuple(listed_one.item for listed_one in answer.items)
            self.store.submit_shown(
                Shown(answer.request, question.visitor, now, one.arm.name, served.version, items, explored=propensities)
            )
        one.cpu["list"] += thread_time() - started
        return Asked(question, now, answer, one.recorded, history, one.cpu)

    def similar(self, item: str, k: int, now: int, *, arm: str | None = None) -> Similar:
        """Return what the model lists after this item alone.

        Raises:
            UnknownNameError: There is no such item or arm.
        """
        chosen = self.arms.of(item) if arm is None else self.arms.named(arm)
        served = chosen.served
        code = served.catalogue.codes([item])
        if code[0] < 0:
            raise UnknownNameError(f"The model of the arm {chosen.name!r} knows no item {item!r}.")
        history = served.history((Kept(now, 0, 0, item, "click", 1),))
        limits = history.limits("history", (), served.catalogue.allowed(None, None))
        top = served.top(history, now, k, limits)
        found = top.items[0][top.items[0] >= 0]
        listed = entries(served, found, top.scores[0], "model")
        return Similar(
            item, served.catalogue.title(int(code[0])), chosen.name, served.model.name, served.version, listed
        )

    def coverage(self, arm: Arm) -> float:
        """Return the share of its catalogue that the model of an arm has listed so far."""
        return float(self._cover(arm.served).mean())

    # -- inside ---------------------------------------------------------------------------------

    def _cover(self, served: Served) -> NDArray[np.bool_]:
        """Return which items have been listed, by code; models that learn on may know more each time."""
        found = self._ever.get(served.artifact)
        if found is None or len(found) < len(served.catalogue):
            known = {arm.served.artifact for arm in self.arms} & self._ever.keys()
            more = np.zeros(len(served.catalogue) - (0 if found is None else len(found)), np.bool_)
            found = more if found is None else np.append(found, more)
            self._ever = {**{name: self._ever[name] for name in known}, served.artifact: found}
        return found

    def _submitted(self, question: Question, now: int, degraded: list[str]) -> "Future[list[Outcome]] | None":
        if question.event is None:
            return None
        if not question.consent:
            done: Future[list[Outcome]] = Future()
            done.set_result([Outcome("refused", "without consent nothing is stored")])
            return done
        try:
            return self.record([question.event], now)
        except StoreError:
            log.warning("An event could not be recorded: the store is overloaded or closed.")
            degraded.append("store")
            return None

    def _events(self, question: Question, now: int, degraded: list[str]) -> tuple[Kept, ...]:
        """Return what the answer rests on: the record or the items given, the event, the item looked at."""
        record = NOTHING
        if question.items is not None:
            start = now - 1000 * len(question.items)
            given = (Kept(start + 1000 * i, i, i, item, "click", 1) for i, item in enumerate(question.items))
            record = msgspec.structs.replace(NOTHING, touched=now, events=tuple(given))
        elif question.visitor is not None and question.consent:
            try:
                record = self.store.record(question.visitor, now)
                if self.past is not None:
                    standing = self.store.standing(question.visitor)
                    events = self.past.joined(standing, record.events, self.store.rules.keep)
                    record = msgspec.structs.replace(record, touched=now, events=events)
            except StoreError as error:
                log.warning("A history could not be read: %s", error)
                degraded.append("store")
        if question.event is not None:
            record = with_event(record, kept(question.event, _LAST, now), now, self._alone)
        if question.item is None:
            return record.events
        at = max(now, record.events[-1].time) if record.events else now
        return (*record.events, Kept(at, _LAST + 1, -1, question.item, "click", 1))
