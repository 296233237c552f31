"""Coded events on their way from the files to their place in the log: a scratch file, then partitions.

A raw log may be larger than memory.  Its events are written, coded, to one scratch file in the
order of reading; once all users are known, the file is dealt out to partitions, each a range of
users that fits into memory, and each keeps the order of reading.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 20
"""Events dealt out at once."""


class Spill:
    """Rows of one record type, appended to a file and read back in parts."""

    def __init__(self, path: Path, kind: np.dtype[Any]) -> None:
        """Start a new file for rows of this type."""
        self.kind = kind
        self._path = path
        self._rows = 0
        path.touch()

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._rows

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows."""
        with self._path.open("ab") as handle:
            handle.write(rows.view(np.uint8).data)
        self._rows += len(rows)

    def chunks(self, size: int) -> Iterator[NDArray[Any]]:
        """Give all rows, in order, at most `size` at once."""
        with self._path.open("rb") as handle:
            while len(rows := np.fromfile(handle, self.kind, size)):
                yield rows

    def whole(self) -> NDArray[Any]:
        """Return all rows, and delete the file."""
        rows = np.fromfile(self._path, self.kind)
        self.remove()
        return rows

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink()


def partitions(spill: Spill, users: NDArray[np.int32], folder: Path, most: int) -> Iterator[NDArray[Any]]:
    """Give the rows of one range of users after another, users of a range numbered from 0.

    Args:
        spill: The rows; its column `user` holds numbers.  It is removed on the way.
        users: The final code of each number, `(B,)`.
        folder: Where scratch files may be put.
        most: Most rows of a range (a single user may have more).
    """
    counts = np.zeros(len(users), np.int64)
    for rows in spill.chunks(CHUNK) if len(spill) > most else ():
        counts += np.bincount(users[rows["user"]], minlength=len(users))
    bounds = _bounds(counts, most)
    if len(bounds) == 2:
        rows = spill.whole()
        rows["user"] = users[rows["user"]]
        yield rows
        return
    parts = [Spill(folder / f"part{number}", spill.kind) for number in range(len(bounds) - 1)]
    for rows in spill.chunks(CHUNK):
        rows["user"] = users[rows["user"]]
        part = np.searchsorted(bounds, rows["user"], side="right") - 1
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(len(bounds)))
        for number in np.unique(part).tolist():
            parts[number].append(rows[order[ends[number] : ends[number + 1]]])
    spill.remove()
    for first, piece in zip(bounds.tolist(), parts, strict=False):
        rows = piece.whole()
        rows["user"] -= first
        yield rows


def _bounds(counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return where ranges of users of at most `most` rows begin, and the end of the last."""
    bounds, size = [0], 0
    for user, count in enumerate(counts.tolist() if counts.sum() > most else []):
        if size and size + count > most:
            bounds.append(user)
            size = 0
        size += count
    return np.array([*bounds, len(counts)], dtype=np.int64)
