"""A kind of store under test, and what its promises are tried with."""

from collections.abc import Callable
from dataclasses import dataclass

from nextsession.serving.events import DAY, Event, Rules
from nextsession.serving.store import Store

NOW = 1_700_000_000_000  # ms; some day in 2023
MINUTE = 60_000


@dataclass(frozen=True)
class StoreSubject:
    """A kind of store under test."""

    open: Callable[[Rules], Store]
    """Gives an empty store, each time another; the caller closes it."""
    reopen: Callable[[Store], Store] | None = None
    """Gives what a new process would find after the store was closed; None for stores that forget."""
    join: Callable[[Store], Store] | None = None
    """Gives what another process has of an open store, with the same rules; None for stores of one process."""


def click(name: str, visitor: str = "ann", at: int = 0, item: str | None = None, **more: object) -> Event:
    """Return an event, by default of an item named after its id."""
    return Event(name, visitor, name if item is None else item, NOW + at, **more)  # type: ignore[arg-type]


def items_of(store: Store, visitor: str = "ann", now: int = NOW + DAY) -> list[str]:
    """Return the items of a visitor's record, oldest first."""
    return [event.item for event in store.record(visitor, now).events]


# -- promises -----------------------------------------------------------------------------------
