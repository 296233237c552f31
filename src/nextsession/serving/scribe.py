"""The process that writes the file of a store for another, which asks it over a socket; see `apart`.

```
 File ──► Begun                          once
 Sent, Sent, ... ──► Told                a group at a time: after the flush, one line for all that was in it
 (the other end is closed) ──► the rest is written, and the process ends
```

Each message is a line of JSON.  The other process may be killed: what it had sent is written all the same.
"""

import contextlib
import queue
import select
import signal
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nextsession.errors import StoreError
from nextsession.serving.committing import Committing
from nextsession.serving.events import Outcome, Receipt
from nextsession.serving.groups import Gathering, Job
from nextsession.serving.works import File, Listed, Work

AT_ONCE = 1 << 18
"""Bytes that are read from the socket at once."""


class Begun(msgspec.Struct, frozen=True):
    """Whether the file could be opened."""

    wrong: str | None = None


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """A job: see `Job`."""

    number: int
    weight: int
    urgent: bool
    after: bool
    work: Work


class Done(msgspec.Struct, frozen=True, array_like=True):
    """What became of a job that somebody waits for."""

    number: int
    result: list[Outcome] | Receipt | int | None
    wrong: str | None = None


class Told(msgspec.Struct, frozen=True):
    """What became of a group of jobs."""

    done: list[Done]
    weight: int
    """Events in it, and lists."""
    facts: Mapping[str, Any]
    """What operators look at: `Committing.facts`."""


ENCODE = msgspec.json.Encoder().encode
_sent = msgspec.json.Decoder(Sent).decode


class Inbox(Gathering):
    """What waits at this end of the socket."""

    def __init__(self, line: socket.socket) -> None:
        """Take the socket."""
        super().__init__()
        self._line, self._poll = line, select.poll()
        self._poll.register(line, select.POLLIN)
        self._rest, self._ended = b"", False
        self._arrived: deque[bytes] = deque()

    def file(self) -> File | None:
        """Wait for the first message; None: there is none."""
        while not self._arrived and not self._ended:
            self._read(None)
        return msgspec.json.decode(self._arrived.popleft(), type=File) if self._arrived else None

    def say(self, what: Begun | Told) -> None:
        """Tell the other process something, if it is still there."""
        with contextlib.suppress(OSError):  # it is gone, and the next that is read says so
            self._line.sendall(ENCODE(what) + b"\n")

    def _next(self, timeout: float | None) -> Job | None:
        while not self._arrived:
            if self._ended:
                return None
            if not self._read(timeout):
                raise queue.Empty
        number, weight, urgent, after, work = msgspec.structs.astuple(_sent(self._arrived.popleft()))
        return Job(work.shown if isinstance(work, Listed) else work, weight, after=after, urgent=urgent, number=number)

    def _any(self) -> bool:
        return bool(self._arrived) or (not self._ended and bool(self._poll.poll(0)))

    def _tell(self, jobs: Sequence[Job], results: Sequence[Any]) -> None:
        done = [
            Done(job.number, None, str(result)) if isinstance(result, Exception) else Done(job.number, result)
            for job, result in zip(jobs, results, strict=True)
            if job.urgent
        ]
        self.say(Told(done, sum(job.weight for job in jobs), self.facts))

    def _read(self, timeout: float | None) -> bool:
        """Read what has come; say whether anything had within so many seconds."""
        if not self._poll.poll(None if timeout is None else 1000 * timeout):
            return False
        try:
            content = self._line.recv(AT_ONCE)
        except ConnectionError:
            content = b""
        self._ended = not content
        *lines, self._rest = (self._rest + content).split(b"\n")
        self._arrived += lines
        return True


def main() -> None:
    """Write for whoever holds the other end of what is this process's input, until it is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the server: it ends this process when it has ended
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=0) as line:
        inbox = Inbox(line)
        file = inbox.file()
        if file is None:
            return
        try:
            committing = Committing(file)
        except StoreError as error:
            inbox.say(Begun(str(error)))
            return
        inbox.say(Begun())
        committing.run(inbox)
        committing.close()


if __name__ == "__main__":
    main()
