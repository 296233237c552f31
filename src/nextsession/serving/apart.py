"""A process of its own that writes the file of a store, and what waits for it.

```
 any thread ──► line ──► scribe ──► disk
                  ▲          │
      loop or listener ◄─────┘ told: futures are done, a group at a time
```

A thread that writes shares the interpreter with the one that answers, and each waits for the other some thirty times
a group; a process does not.  If it ends, all that waits has failed, and another is started in its place.
"""

import asyncio
import contextlib
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from nextsession.errors import StoreError
from nextsession.serving.adding import Recent
from nextsession.serving.bell import is_running
from nextsession.serving.committing import NO_FACTS, unwritten
from nextsession.serving.events import Shown
from nextsession.serving.groups import Job, answer, refuse
from nextsession.serving.scribe import AT_ONCE, ENCODE, Begun, Sent, Told
from nextsession.serving.works import File, Listed

log = logging.getLogger(__name__)

_AGAIN = 0.5
"""Seconds from one try to start the process to the next, if it ended."""
_LEISURE = 0.5
"""Seconds after which jobs that nobody waits for are sent without one that somebody waits for: to send wakes the other
process, which costs as much as what is sent."""
_MUCH = 1 << 16
"""Bytes of such jobs that are sent at once."""
_SLOWEST = 60.0
"""Seconds that a process may take to open the file."""
_PATIENCE = 5.0
"""Seconds that a loop of events may take to leave a socket alone."""

_told = msgspec.json.Decoder(Told).decode
_begun = msgspec.json.Decoder(Begun).decode


class Apart:
    """Jobs for a process of its own, bounded by the events in them; any thread may put some.

    Args:
        file: What is written.
        most: More events than this waiting to be written are refused.
    """

    def __init__(self, file: File, most: int) -> None:
        """Start the process.

        Raises:
            StoreError: It cannot open the file.
        """
        self.waiting, self.closed = 0, False
        self.facts: Mapping[str, Any] = NO_FACTS
        self.recent: Recent | None = None
        """Nothing is remembered here of what is in the file."""
        self._file, self._most = file, most
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._jobs: dict[int, Job] = {}  # those that somebody waits for
        self._loop: asyncio.AbstractEventLoop | None = None  # who hears in place of the listener
        self._hearing = threading.Lock()
        self._heard = b""  # the beginning of a line
        self._later = bytearray()  # what nobody waits for
        self._rest = bytearray()  # what the socket has not taken yet
        self._ending = threading.Event()
        self._process, self._line = self._started()
        self._bell, self._rung = socket.socketpair()  # wakes the listener
        self._bell.setblocking(False)
        self._thread = threading.Thread(target=self._listen, name="store", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            StoreError: It is closed, too much waits, or the process has just ended.
        """
        work = Listed(job.work) if isinstance(job.work, Shown) else job.work
        number = next(self._numbers)
        try:
            line = ENCODE(Sent(number, job.weight, job.urgent, job.after, work)) + b"\n"
        except UnicodeEncodeError as error:  # half of a surrogate pair is no text
            answer(job, unwritten(self._file.path, error))
            return
        with self._lock:
            refuse(self._file.path, self._most, self.waiting, self.closed, job)
            if self._line is None:
                raise self._lost()
            self.waiting += job.weight
            self._later += line
            if job.urgent:
                self._jobs[number] = job
            if job.urgent or len(self._later) > _MUCH:
                self._send()

    def promised(self, job: Job) -> "Future[Any]":
        """Let a job wait for its turn, and return what will say what became of it; see `put`."""
        self.put(job)
        assert job.future is not None
        return job.future

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a loop of events hear what is told, in whose thread this is called: no other thread need then wake it."""
        self._loop = loop
        self._wake()
        self._listened_to()

    def close(self) -> None:
        """Take no more jobs, and wait until those that wait are done and the process has ended."""
        with self._lock:
            self.closed = True
        self._ending.set()
        self._wake()
        self._thread.join()
        for one in (self._bell, self._rung):
            one.close()

    # -- inside ---------------------------------------------------------------------------------

    def _started(self) -> "tuple[subprocess.Popen[bytes], socket.socket | None]":
        """Start a process that has the file open.

        Raises:
            StoreError: It cannot begin, or cannot open the file.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "nextsession.serving.scribe"],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(place or str(Path.cwd()) for place in sys.path)},
                )
            try:
                wrong = self._greeted(ours)
                if wrong is not None:
                    raise StoreError(wrong)
            except BaseException:
                process.kill()
                process.wait()
                raise
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise StoreError(f"{self._file.path}: no process could be started that writes it: {error}.") from error
            raise
        ours.setblocking(False)
        return process, ours

    def _greeted(self, line: socket.socket) -> str | None:
        """Say which file is to be written; return what is wrong with it."""
        line.settimeout(_SLOWEST)
        line.sendall(ENCODE(self._file) + b"\n")
        said = b""
        while not said.endswith(b"\n"):
            content = line.recv(AT_ONCE)
            if not content:
                return f"{self._file.path}: the process that writes it ended as it began; its messages say why."
            said += content
        return _begun(said).wrong

    def _send(self) -> None:
        """Send what waits, or what the socket takes of it: the rest is the listener's."""
        assert self._line is not None
        content, self._later = self._later, bytearray()
        if not self._rest:
            with contextlib.suppress(BlockingIOError, ConnectionError):  # the listener finds out
                del content[: self._line.send(content)]
            if content:
                self._wake()
        self._rest += content

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._bell.send(b".")

    def _listen(self) -> None:
        while self._line is not None:
            began = time.monotonic()
            self._attended(self._line)
            self._left_alone(self._line)
            with self._lock:
                line, self._line = self._line, None
                jobs, self._jobs, self.waiting = list(self._jobs.values()), {}, 0
                self._later, self._rest, self._heard = bytearray(), bytearray(), b""
            line.close()
            code = self._process.wait()
            for job in jobs:
                answer(job, self._lost())
            if self._ending.is_set():
                return
            log.error("The process that writes %s ended with exit code %s; another is started.", self._file.path, code)
            self.facts = {**self.facts, "error": f"the process that writes ended with exit code {code}"}
            while self._line is None and not self._ending.wait(max(0.0, began + _AGAIN - time.monotonic())):
                began = time.monotonic()
                with contextlib.suppress(StoreError):
                    self._process, self._line = self._started()
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # it has ended
                    self._loop.call_soon_threadsafe(self._listened_to)

    def _attended(self, line: socket.socket) -> None:
        """Send what could not be sent at once, and hear what no loop hears, until the other end is closed."""
        poll, over, sent_at = select.poll(), False, time.monotonic()
        poll.register(self._rung, select.POLLIN)
        while True:
            now, ending = time.monotonic(), self._ending.is_set()
            with self._lock:
                if ending or now - sent_at > _LEISURE:
                    sent_at = now
                    if self._later:
                        self._send()
                left = bool(self._rest)
            if ending and not left and not over:
                over = True
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_WR)  # it writes what it has, and ends
            hears = self._loop is None or ending
            if not hears and not self._hear(line):  # now and then: should the loop itself wait for what is told
                return
            poll.register(line, (select.POLLIN if hears else 0) | (select.POLLOUT if left else 0))
            for descriptor, what in poll.poll(1000 * _LEISURE):
                if descriptor == self._rung.fileno():
                    self._rung.recv(4096)
                    continue
                if what & select.POLLOUT:
                    with self._lock, contextlib.suppress(BlockingIOError, ConnectionError):
                        del self._rest[: line.send(self._rest)]
                if what & ~select.POLLOUT and not self._hear(line):  # its end is noticed, whoever hears
                    return

    def _listened_to(self) -> None:
        """Let the loop hear; in its thread."""
        line, loop = self._line, self._loop
        if line is not None and loop is not None:
            loop.add_reader(line, self._hear, line)

    def _left_alone(self, line: socket.socket) -> None:
        """See that the loop does not look at a socket that is about to be closed."""
        loop, done = self._loop, threading.Event()
        if loop is None:
            return

        def leave() -> None:
            loop.remove_reader(line)
            done.set()

        with contextlib.suppress(RuntimeError):  # it has ended
            loop.call_soon_threadsafe(leave)
            done.wait(_PATIENCE)

    def _hear(self, line: socket.socket) -> bool:
        """Hear what has been told by now; say whether more may come."""
        with self._hearing:
            try:
                content = line.recv(AT_ONCE)
            except BlockingIOError:
                return True
            except OSError:
                content = b""
            if not content and self._loop is not None and is_running(self._loop):
                self._loop.remove_reader(line)
            *lines, self._heard = (self._heard + content).split(b"\n")
            for one in lines:
                self._settle(_told(one))
        return bool(content)

    def _settle(self, told: Told) -> None:
        self.facts = told.facts
        with self._lock:
            self.waiting -= told.weight
            jobs = [self._jobs.pop(done.number) for done in told.done]
        for job, done in zip(jobs, told.done, strict=True):
            answer(job, done.result if done.wrong is None else StoreError(done.wrong))

    def _lost(self) -> StoreError:
        return StoreError(
            f"{self._file.path} cannot be written: the process that writes it ended. What waited may have been "
            "recorded; send it again, with the same ids."
        )
