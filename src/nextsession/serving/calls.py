"""What routes are made of: a call, a route, and what routes have in common."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from nextsession.errors import StoreError
from nextsession.serving.events import SHOWN, Event, Outcome
from nextsession.serving.questions import Answer
from nextsession.serving.security import Scope
from nextsession.serving.server import Server
from nextsession.serving.wire import MOST_LISTED


class ParameterError(ValueError):
    """A parameter of the address is not what it must be."""


@dataclass(frozen=True)
class Call:
    """One request, as a route sees it."""

    server: Server
    body: Any
    path: Mapping[str, str]
    query: Mapping[str, str]

    @property
    def now(self) -> int:
        """The instant, in ms."""
        return self.server.clock()

    def k(self) -> int:
        """Return the length of list that is asked for.

        Raises:
            ParameterError: It is no number, or out of range.
        """
        text = self.query.get("k", "20")
        if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MOST_LISTED):
            raise ParameterError(f"k must be a whole number from 1 to {MOST_LISTED}, got {text[:20]!r}.")
        return int(text)


@dataclass(frozen=True)
class Route:
    """One route, for the server and for the page of the interface."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    scope: Scope | None
    summary: str
    handle: Callable[[Call], Awaitable[Any]]
    gives: Any
    takes: Any = None
    query: tuple[str, ...] = ()
    fails: tuple[int, ...] = ()
    """Statuses besides those that any route may answer with."""
    stage: str = ""
    """The name of its histogram."""

    @property
    def has_id(self) -> bool:
        """Is there an id in its path?"""
        return "{id}" in self.path


async def durable(server: Server, submitted: "Future[list[Outcome]]") -> list[Outcome]:
    """Wait until events are durable.

    Raises:
        StoreError: They cannot be made durable, or not in time.
    """
    if submitted.done():
        return submitted.result()
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[list[Outcome]] = loop.create_future()

    def late() -> None:
        if not waiting.done():
            patience = server.settings.patience
            waiting.set_exception(StoreError(f"Events were not durable within {patience:g} s; send them again."))

    timer = loop.call_later(server.settings.patience, late)
    submitted.add_done_callback(lambda done: server.bell.ring(loop, done, waiting))
    try:
        return await waiting
    finally:
        timer.cancel()


def count_event(server: Server, event: Event, outcome: Outcome) -> None:
    """Count an event, and a click on what an arm had shown."""
    server.metrics.count(f'events_total{{status="{outcome.status}"}}')
    if outcome.status == "accepted" and event.request and event.label == 1 and event.action != SHOWN:
        arm = event.request.partition(".")[0]
        if any(arm == one.name for one in server.engine.arms):
            server.metrics.count(f'clicks_total{{arm="{arm}"}}')


def count_answer(server: Server, answer: Answer, cpu: Mapping[str, float], *, chosen: bool) -> None:
    """Count a list and its CPU-seconds; one whose arm was asked for by name is not part of the comparison of arms."""
    metrics = server.metrics
    for stage, seconds in cpu.items():
        metrics.count(f'cpu_seconds_total{{stage="{stage}"}}', seconds)
    metrics.count(f'answers_total{{arm="{answer.arm}",chosen="{"yes" if chosen else "no"}"}}')
    for what in answer.degraded:
        metrics.count(f'degraded_total{{what="{what}"}}')
    sources: dict[str, int] = {}
    for one in answer.items:
        sources[one.source] = sources.get(one.source, 0) + 1
    for source, number in sources.items():
        metrics.count(f'items_total{{source="{source}"}}', number)
    for stage, milliseconds in answer.took.items():
        metrics.observe(f'seconds{{stage="{stage}"}}', milliseconds / 1000)
