"""What is asked of an engine and what it answers: the messages of the HTTP interface, too."""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from nextsession.recommender import Exclude
from nextsession.serving.events import Event, Outcome

ItemId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
VisitorId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
Source: TypeAlias = Literal["model", "fallback", "recent", "usual", "any", "explore"]
"""Where an item of a list comes from, in the order in which the sources are asked; and those that are tried out."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What to recommend, to whom."""

    visitor: str | None = None
    k: int = 20
    item: str | None = None
    """The item that is looked at now."""
    items: tuple[str, ...] | None = None
    """A session given with the question, in place of what is remembered."""
    event: Event | None = None
    exclude: Exclude = "session"
    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None
    where: dict[str, tuple[str, ...]] | None = None
    consent: bool = True
    explain: bool = False
    arm: str | None = None
    shown: bool = True

    @property
    def recorded(self) -> bool:
        """Is the list noted as shown?  Only where it is shown to somebody, who agrees."""
        return self.visitor is not None and self.consent and self.shown


class Because(msgspec.Struct, frozen=True, gc=False):
    """What one event did for one item."""

    event: int
    """Its place in `history`."""
    weight: float
    """Its share of what all events did for the item, 0 to 1."""
    place: int | None
    """Where the item would stand without it; null: nowhere."""


class Listed(msgspec.Struct, frozen=True, gc=False):
    """One item of a list."""

    item: str
    title: str
    score: float | None
    source: Source
    because: tuple[Because, ...] = ()


class Seen(msgspec.Struct, frozen=True):
    """One event of the history that an answer rests on."""

    item: str
    title: str
    time: int
    action: str
    label: int
    session: int
    known: bool
    """Does the model know the item?"""
    weight: float
    """The mean of its shares over the items of the list."""


class Answer(msgspec.Struct, frozen=True):
    """A list, and where it comes from."""

    request: str
    arm: str
    model: str
    version: str
    items: tuple[Listed, ...]
    degraded: tuple[str, ...] = ()
    """What failed: `store`, `model`, `fallback`; empty when all is well."""
    recorded: Outcome | None = None
    """What became of the event that came with the question."""
    history: tuple[Seen, ...] = ()
    took: dict[str, float] = {}
    """Milliseconds by stage."""


class Similar(msgspec.Struct, frozen=True):
    """Items that a model lists after one item alone."""

    item: str
    title: str
    arm: str
    model: str
    version: str
    items: tuple[Listed, ...]
