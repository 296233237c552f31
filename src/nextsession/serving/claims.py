"""Claims on the file of a store, so that two servers do not both believe that they are alone with it."""

import os
import sys
from pathlib import Path

from nextsession.errors import StoreError


def claimed(path: Path, *, alone: bool) -> int | None:
    """Claim a file, alone or with others, until the process ends or the descriptor is closed.

    Raises:
        StoreError: It cannot be had so.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened as a store: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreError(f"{path} is being written by another server; end it, or name another folder.") from None
    return descriptor
