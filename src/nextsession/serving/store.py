"""The contract of stores: a log of events that is the truth, and a record of each visitor that follows from it.

```
 submit(events) ──► one writer ──► log (durable) ──► acknowledged
                        └────────► records, rebuilt from the log whenever wanted
```

`nextsession.testing.stores` holds every store to it.  A store never reads the clock: callers pass
`now`, so that tests, replays and servers agree.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from nextsession.serving.events import Event, Outcome, Receipt, Record, Rules, Shown, Stored, Tombstone


class Known(msgspec.Struct, frozen=True):
    """Everything that is held of one visitor: what a person may ask to see."""

    visitor: str
    """The id that the others were merged into; events are given under it."""
    identities: tuple[str, ...]
    events: tuple[Stored, ...]
    shown: tuple[Shown, ...]


class Store(ABC):
    """Remembers events durably and gives the record of a visitor at once."""

    rules: Rules

    # -- writing --------------------------------------------------------------------------------

    @abstractmethod
    def submit(self, events: Sequence[Event], now: int) -> "Future[list[Outcome]]":
        """Add events; the future is done when they are durable, with what became of each.

        Late events take their place by time, ties that of arrival.  An id that the visitor has used
        before is a duplicate and changes nothing.  Either all events are added or, if the future
        holds an error, none.

        Raises:
            StoreError: More waits to be written than the store will hold.
        """

    @abstractmethod
    def submit_shown(self, shown: Shown) -> None:
        """Add a list that was shown; durable soon, and lost if the process is killed before."""

    @abstractmethod
    def merge(self, visitor: str, into: str, now: int) -> int:
        """Make two ids one person, from now on and for the past; return how many events moved.

        Every later event and question of either is of both.  Merging what is one already moves nothing.
        """

    @abstractmethod
    def erase(self, visitor: str, now: int) -> Receipt:
        """Remove everything about a visitor and all ids merged with it, and leave a tombstone for each."""

    @abstractmethod
    def sweep(self, now: int, *, retention: int | None = None) -> int:
        """Drop the records of visitors that have been silent too long; return how many.

        Args:
            now: The instant.
            retention: Also remove events and impressions from the log that arrived more than this
                long (ms) before its newest event, and before the instant.  Should the clock be wrong, or
                have been, nothing is removed for it: what stands after an event that is new enough stays.
        """

    @abstractmethod
    def rebuild(self) -> int:
        """Make all records again from the log; return how many there are."""

    def append(self, events: Sequence[Event], now: int) -> list[Outcome]:
        """Add events and wait until they are durable; see `submit`."""
        return self.submit(events, now).result()

    @abstractmethod
    def flush(self) -> None:
        """Wait until everything submitted is durable."""

    @abstractmethod
    def close(self) -> None:
        """Make everything durable and let go of files; a closed store may be closed again."""

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear that this loop of events, in whose thread this is called, waits for what is submitted: it may be told.

        A store that is told of what it submitted by other means, such as a thread, needs none.
        """
        return

    # -- reading --------------------------------------------------------------------------------

    @abstractmethod
    def record(self, visitor: str, now: int) -> Record:
        """Return what is remembered of a visitor; empty for one unknown or silent too long.

        Raises:
            StoreError: It cannot be read.
        """

    @abstractmethod
    def known(self, visitor: str) -> Known | None:
        """Return everything that is held of a visitor, or None."""

    @abstractmethod
    def standing(self, visitor: str) -> dict[str, int | None]:
        """Return the ids that a visitor goes by, this one among them, each with when it was erased, if it was."""

    @abstractmethod
    def events(self, after: int = 0, limit: int | None = None) -> Iterator[Stored]:
        """Give the log in the order of arrival, from the event that follows place `after`."""

    @abstractmethod
    def shown(self, after: int = 0, limit: int | None = None) -> Iterator[tuple[int, Shown]]:
        """Give the lists that were shown, each with its place, from the one that follows `after`."""

    @abstractmethod
    def tombstones(self) -> list[Tombstone]:
        """Return who was erased and when."""

    @abstractmethod
    def last(self) -> int:
        """Return the place of the newest entry, events and lists alike; it never falls, whatever is removed."""

    @abstractmethod
    def rewritten(self) -> int:
        """Return how often what stands in the log was changed or removed: merged, erased, or too old.

        Whoever follows the log by place reads it again from the start when this number is another.
        """

    @abstractmethod
    def note(self, name: str, value: str | None) -> None:
        """Keep a small text under a name, durably; None removes it.  For what all workers must agree on."""

    @abstractmethod
    def noted(self, name: str) -> str | None:
        """Return what was kept under a name."""

    @abstractmethod
    def health(self) -> dict[str, Any]:
        """Return what operators look at: counts, sizes, what waits, the last error."""
