"""The write-ahead log of a `SQLiteStore` is carried over into its file beside the thread that writes.

```
 writer ──► log (durable) ──► once a second, by a thread of its own ──► file
```

To carry a second's events over takes as long as many commits: whoever waited for one meanwhile would
wait for it.  What is written meanwhile is left to the next time, and when the log has grown large, the few pages
that are left are carried over by the writer itself, for only then does SQLite begin the log from its start.
"""

import contextlib
import sqlite3
import threading
import time

_EVERY = 1.0
"""Seconds from one time to the next."""
_LARGE = 4000
"""A log of so many pages is begun from its start as soon as may be."""


class Carrying:
    """The thread that carries over, while the writer writes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Begin; the connection is for this alone."""
        self._connection = connection
        self._one = threading.Lock()  # SQLite lets one carry over at a time, and turns others away
        self._written, self._large, self._stop = False, False, threading.Event()
        self._thread = threading.Thread(target=self._run, name="carrying", daemon=True)
        self._thread.start()

    def wrote(self, writer: sqlite3.Connection) -> None:
        """Hear that something was committed; the thread that writes says so."""
        self._written = True
        if self._large:
            self._large = False
            with self._one, contextlib.suppress(sqlite3.Error):
                writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def empty(self, writer: sqlite3.Connection, patience: float) -> None:
        """Carry all over, and leave no byte in the log; the thread that writes asks for it.

        Raises:
            sqlite3.Error: The disk does not take it.
        """
        until = time.monotonic() + patience
        with self._one:
            while writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] and time.monotonic() < until:
                time.sleep(0.01)  # another process carries over

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            if not self._written:
                continue
            self._written = False
            with self._one, contextlib.suppress(sqlite3.Error):  # a full disk is said where events are written
                _, pages, _ = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                self._large = pages >= _LARGE
