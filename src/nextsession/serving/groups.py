"""What waits to be written: taken in groups by the one who writes."""

import contextlib
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from nextsession.errors import StoreError

_AT_ONCE = 4096
_LEISURE = 0.2
"""Seconds that jobs which nobody waits for may lie about, until they are taken without one that somebody waits for."""


class Job:
    """Something to be written, and who waits for it."""

    __slots__ = ("after", "future", "number", "urgent", "weight", "work")

    def __init__(self, work: Any, weight: int, *, after: bool = False, urgent: bool = True, number: int = 0) -> None:
        """Note what to do, how many events it counts for, whether something must be done after it, and who waits.

        Args:
            work: What to do.
            weight: How many events it counts for.
            after: Must something be done after it?
            urgent: Does anybody wait for it?
            number: What whoever waits in another process knows it by.
        """
        self.work, self.weight, self.after, self.urgent, self.number = work, weight, after, urgent, number
        self.future: Future[Any] | None = Future() if urgent else None


class Gathering(ABC):
    """Takes what waits in groups."""

    spacing = 0.0
    """Seconds from one group to the next, at least, while more waits already when the first is done."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.facts: Mapping[str, Any] = {}
        """What operators look at; whoever writes keeps it up to date."""
        self._taken_at, self._crowded = 0.0, False

    @abstractmethod
    def _next(self, timeout: float | None) -> Job | None:
        """Return the job that has waited longest; None: no more will come.

        Raises:
            queue.Empty: Nothing came within so many seconds; 0: nothing waits now.
        """

    @abstractmethod
    def _any(self) -> bool:
        """Say whether anything waits now."""

    @abstractmethod
    def _tell(self, jobs: Sequence[Job], results: Sequence[Any]) -> None:
        """Tell those who wait; see `settle`."""

    def taken(self, patience: float | None = None) -> tuple[list[Job], bool]:
        """Wait for a job, at most `patience` seconds, and take all that wait; say whether more may come.

        A flush to the disk costs as much as an answer, and every answer leaves a note of what was
        shown: jobs that are not urgent go with the next that is, in the order in which they came.
        """
        jobs: list[Job | None] = []
        wait = self._taken_at + self.spacing - time.monotonic() if self._crowded else 0.0
        if wait > 0:
            time.sleep(wait)
        with contextlib.suppress(queue.Empty):
            jobs.append(last := self._next(patience))
            until = time.monotonic() + _LEISURE
            while last is not None and not last.urgent and len(jobs) < _AT_ONCE:
                jobs.append(last := self._next(max(0.0, until - time.monotonic())))
            while last is not None and len(jobs) < _AT_ONCE:
                jobs.append(last := self._next(0))
        self._taken_at = time.monotonic()
        return [job for job in jobs if job is not None], None not in jobs

    def settle(self, jobs: Sequence[Job], results: Sequence[Any]) -> None:
        """Tell those who wait what became of their jobs: a result, or the error that kept it from being done."""
        self._crowded = self._any()  # whoever is told now may come again at once, and is no crowd
        self._tell(jobs, results)


class Groups(Gathering):
    """A queue of jobs between threads, bounded by the events in them.

    Args:
        where: What is written to, for messages.
        most: More events than this waiting to be written are refused.
    """

    spacing = 0.002  # one flush then pays for all that comes meanwhile, and the other threads are disturbed less often

    def __init__(self, where: str, most: int) -> None:
        """Begin with nothing."""
        super().__init__()
        self.waiting, self.closed = 0, False
        self._where, self._most = where, most
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def put(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            StoreError: It is closed, or too much waits.
        """
        with self._lock:
            refuse(self._where, self._most, self.waiting, self.closed, job)
            self.waiting += job.weight
            self._queue.put(job)

    def promised(self, job: Job) -> "Future[Any]":
        """Let a job wait for its turn, and return what will say what became of it; see `put`."""
        self.put(job)
        assert job.future is not None
        return job.future

    def close(self) -> None:
        """Take no more jobs; who takes them hears of it after the last."""
        with self._lock:
            self.closed = True
            self._queue.put(None)

    def _next(self, timeout: float | None) -> Job | None:
        return self._queue.get_nowait() if timeout == 0 else self._queue.get(timeout=timeout)

    def _any(self) -> bool:
        return not self._queue.empty()

    def _tell(self, jobs: Sequence[Job], results: Sequence[Any]) -> None:
        with self._lock:
            self.waiting -= sum(job.weight for job in jobs)
        for job, result in zip(jobs, results, strict=True):
            answer(job, result)


def refuse(where: str, most: int, waiting: int, closed: bool, job: Job) -> None:
    """See that a job may wait.

    Raises:
        StoreError: What is written to is closed, or too much waits.
    """
    if closed:
        raise StoreError(f"{where} has been closed; open it again to write to it.")
    if job.weight and waiting + job.weight > most:
        raise StoreError(f"{waiting} events wait to be written to {where}; send them again later.")


def answer(job: Job, result: Any) -> None:
    """Tell who waits for a job, if anybody does."""
    if job.future is None or job.future.cancelled():
        return
    if isinstance(result, Exception):
        job.future.set_exception(result)
    else:
        job.future.set_result(result)
