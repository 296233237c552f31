"""What is asked of who writes a file: each work is done to the tables within one transaction, and can be sent.

A work that is called with a `Writing` does what it says.  Events and lists are not called: a group of them is added
together (`Adding.add_all`).
"""

from typing import TypeAlias

import msgspec

from nextsession.serving.adding import Added
from nextsession.serving.events import Receipt, Rules, Shown
from nextsession.serving.writing import Writing


class File(msgspec.Struct, frozen=True):
    """Which file is written, and how."""

    path: str
    rules: Rules
    patience: float
    """How long (s) to wait for another process that writes."""
    largest: int | None
    """The file may have so many pages of 4 KiB; none: what the disk holds."""
    alone: bool
    """No other process writes."""


class Listed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A list that was shown."""

    shown: Shown


class Merge(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Make two ids one person."""

    visitor: str
    into: str

    def __call__(self, writing: Writing) -> int:
        """Return how many events moved."""
        return writing.merge(self.visitor, self.into)


class Erase(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Remove everything about a visitor."""

    visitor: str
    now: int

    def __call__(self, writing: Writing) -> Receipt:
        """Return what was removed."""
        return writing.erase(self.visitor, self.now)


class Forget(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Drop the records of people `start..stop` that were last heard of before an instant."""

    start: int
    stop: int
    before: int

    def __call__(self, writing: Writing) -> int:
        """Return how many."""
        return writing.forget(self.start, self.stop, self.before)


class Trim(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Remove entries `start..stop` of the log that arrived before an instant."""

    start: int
    stop: int
    before: int

    def __call__(self, writing: Writing) -> None:
        """Do it."""
        writing.trim(self.start, self.stop, self.before)


class Rebuild(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Make all records again from the log."""

    def __call__(self, writing: Writing) -> int:
        """Return how many there are."""
        return writing.rebuild()


class Note(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Keep a small text under a name; none: forget it."""

    name: str
    value: str | None

    def __call__(self, writing: Writing) -> None:
        """Do it."""
        writing.note(self.name, self.value)


class Nothing(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Change nothing: who waits for this has waited for all that came before."""

    def __call__(self, writing: Writing) -> None:
        """Do nothing."""


Work: TypeAlias = Added | Listed | Merge | Erase | Forget | Trim | Rebuild | Note | Nothing
