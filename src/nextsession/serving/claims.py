"""Claims on the file of a store: that nobody else has it, for good, or that it is one's turn to write."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from nextsession.errors import StoreError

_ENDING = 1.0
"""Seconds for which a claim waits: who wrote for a server that was killed puts on the disk what it was sent."""


def claimed(path: Path, *, alone: bool) -> int | None:
    """Claim a file, alone or with others, until the process ends or the descriptor is closed.

    Raises:
        StoreError: It cannot be had so, nor a moment later.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened as a store: {error.strerror}.") from error
    until = time.monotonic() + _ENDING
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            if time.monotonic() < until:
                time.sleep(0.01)
                continue
            os.close(descriptor)
            raise StoreError(f"{path} is being written by another server; end it, or name another folder.") from None


class Turns:
    """Lets processes write one after the other: whoever waits sleeps until woken, and takes all that came meanwhile.

    SQLite alone would let them try again every so many milliseconds.
    """

    def __init__(self, path: Path) -> None:
        """Open the file that the turns are taken on; where there are no such locks, SQLite's must do."""
        self._descriptor = None
        if sys.platform != "win32":
            self._descriptor = os.open(path.with_name(path.name + ".turn"), os.O_RDWR | os.O_CREAT, 0o600)

    @contextlib.contextmanager
    def mine(self) -> Iterator[None]:
        """Wait for the turn, and have it for as long as the block takes."""
        if self._descriptor is None:
            yield
            return
        import fcntl

        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Take no more turns."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
