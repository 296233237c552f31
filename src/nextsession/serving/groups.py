"""What waits to be written: taken in groups by the one thread that writes."""

import contextlib
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from nextsession.errors import StoreError

_AT_ONCE = 4096
_SPACING = 0.002
"""Seconds from one group to the next, at least, while more waits already when the first is done: one flush then pays
for all that comes meanwhile, and the thread that answers is disturbed less often."""
_LEISURE = 0.2
"""Seconds that jobs which nobody waits for may lie about, until they are taken without one that somebody waits for."""


class Job:
    """Something to be written, and who waits for it."""

    __slots__ = ("after", "future", "urgent", "weight", "work")

    def __init__(self, work: Any, weight: int, *, after: bool = False, urgent: bool = True) -> None:
        """Note what to do, how many events it counts for, whether something must be done after it, and who waits."""
        self.work, self.weight, self.after, self.urgent = work, weight, after, urgent
        self.future: Future[Any] | None = Future() if urgent else None


class Groups:
    """A queue of jobs, bounded by the events in them.

    Args:
        where: What is written to, for messages.
        most: More events than this waiting to be written are refused.
    """

    def __init__(self, where: str, most: int) -> None:
        """Begin with nothing."""
        self.waiting, self.closed = 0, False
        self._where, self._most = where, most
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._taken_at, self._crowded = 0.0, False

    def put(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            StoreError: It is closed, or too much waits.
        """
        if self.closed:
            raise StoreError(f"{self._where} has been closed; open it again to write to it.")
        if job.weight and self.waiting + job.weight > self._most:
            raise StoreError(f"{self.waiting} events wait to be written to {self._where}; send them again later.")
        with self._lock:
            self.waiting += job.weight
        self._queue.put(job)

    def promised(self, job: Job) -> "Future[Any]":
        """Let a job wait for its turn, and return what will say what became of it; see `put`."""
        self.put(job)
        assert job.future is not None
        return job.future

    def close(self) -> None:
        """Take no more jobs; the thread that takes them hears of it after the last."""
        self.closed = True
        self._queue.put(None)

    def taken(self, patience: float | None = None) -> tuple[list[Job], bool]:
        """Wait for a job, at most `patience` seconds, and take all that wait; say whether more may come.

        A flush to the disk costs as much as an answer, and every answer leaves a note of what was
        shown: jobs that are not urgent go with the next that is, in the order in which they came.
        """
        jobs: list[Job | None] = []
        if self._crowded:
            time.sleep(max(0.0, self._taken_at + _SPACING - time.monotonic()))
        with contextlib.suppress(queue.Empty):
            jobs.append(last := self._queue.get(timeout=patience))
            until = time.monotonic() + _LEISURE
            while last is not None and not last.urgent and len(jobs) < _AT_ONCE:
                jobs.append(last := self._queue.get(timeout=max(0.0, until - time.monotonic())))
            while len(jobs) < _AT_ONCE:
                jobs.append(self._queue.get_nowait())
        self._taken_at = time.monotonic()
        return [job for job in jobs if job is not None], None not in jobs

    def settle(self, jobs: Sequence[Job], results: Sequence[Any]) -> None:
        """Tell those who wait what became of their jobs: a result, or the error that kept it from being done."""
        self._crowded = not self._queue.empty()  # whoever is told now may come again at once, and is no crowd
        with self._lock:
            self.waiting -= sum(job.weight for job in jobs)
        for job, result in zip(jobs, results, strict=True):
            if job.future is None or job.future.cancelled():
                continue
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
