"""The log of a server: one JSON object a line, without ids of visitors.

In an outage every answer would say the same: of each kind of what goes wrong there is a line, and then a count.
"""

import json
import logging
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

_EVERY = 10.0
"""Seconds in which one line of a kind is written, and after which it is said how many more there were."""
_KINDS = 1000


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        row: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "where": record.name,
            "says": record.getMessage(),
        }
        named = ("request", "route", "more", "seconds")
        row |= {name: getattr(record, name) for name in named if hasattr(record, name)}
        if record.exc_info:
            row["trace"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False)


@dataclass
class _Held:
    """What came of one kind since a line of it was written."""

    more: int = 0
    last: logging.LogRecord | None = None


class Seldom(logging.StreamHandler[TextIO]):
    """Writes everything that is well, and of each kind of what is not one line at once and then a count.

    Of a kind are records of one place in the code, one route and one type of exception.
    """

    def __init__(self, stream: TextIO, every: float = _EVERY) -> None:
        """Write to a stream; count for so many seconds."""
        super().__init__(stream)
        self._every = every
        self._held: dict[tuple[Any, ...], _Held] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it."""
        if record.levelno < logging.WARNING:
            super().emit(record)
            return
        error = record.exc_info[0] if record.exc_info else None
        kind = record.name, record.levelno, record.msg, getattr(record, "route", ""), error
        held = self._held.get(kind)
        if held is not None:
            held.more, held.last = held.more + 1, record
            return
        super().emit(record)
        if len(self._held) < _KINDS:
            self._begin(kind)

    def close(self) -> None:
        """Write what was counted."""
        self.acquire()
        try:
            held, self._held = self._held, {}
            for one in held.values():
                self._count(one)
        finally:
            self.release()
        super().close()

    # -- inside ---------------------------------------------------------------------------------

    def _begin(self, kind: tuple[Any, ...]) -> None:
        self._held[kind] = _Held()
        timer = threading.Timer(self._every, self._end, (kind,))
        timer.daemon = True
        timer.start()

    def _end(self, kind: tuple[Any, ...]) -> None:
        """Write how many came, and go on counting if any did."""
        self.acquire()
        try:
            held = self._held.pop(kind, None)
            if held is not None and held.more:
                self._count(held)
                self._begin(kind)
        finally:
            self.release()

    def _count(self, held: _Held) -> None:
        """Write the latest of a kind, and how many there were."""
        if held.last is not None:
            held.last.exc_info = held.last.exc_text = None  # the first has it
            held.last.more, held.last.seconds = held.more, self._every
            super().emit(held.last)


def to_stderr(level: int = logging.INFO) -> None:
    """Write the log of this process to stderr."""
    handler = Seldom(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("nextsession", "uvicorn.error"):
        one = logging.getLogger(name)
        one.handlers, one.propagate = [handler], False
        one.setLevel(level)
