"""The messages of the HTTP interface: what may come in, and what goes out."""

import hashlib
import uuid
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from nextsession.index.kept import Kind
from nextsession.serving.arms import Role
from nextsession.serving.events import SHOWN, Event, Outcome, Shown
from nextsession.serving.questions import Listed, Question

LONGEST = 256
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=LONGEST)]
Whole: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
ArmName: TypeAlias = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
ItemId: TypeAlias = Text | Whole
VisitorId: TypeAlias = Text | Whole
Instant: TypeAlias = Annotated[int, Meta(ge=0, le=2**53, description="Milliseconds since 1970 UTC")]
Exclude: TypeAlias = Literal["nothing", "session", "history"]

MOST_EVENTS = 1000
MOST_LISTED = 200


class EventMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing one visitor did with one item."""

    visitor: VisitorId
    item: ItemId
    id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    time: Instant | None = None
    action: Annotated[str, Meta(min_length=1, max_length=64)] = "click"
    label: Literal[0, 1] | None = None
    request: Annotated[str, Meta(max_length=128)] = ""
    consent: bool = True

    def event(self, now: int) -> Event:
        """Return the event; one without an id gets one, from what it says of itself if that includes its time."""
        visitor, item = str(self.visitor), str(self.item)
        label = (0 if self.action == SHOWN else 1) if self.label is None else self.label
        name = self.id
        if name is None and self.time is None:
            name = uuid.uuid4().hex
        elif name is None:
            told = "\x00".join([visitor, item, self.action, str(self.time)])
            name = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
        return Event(name, visitor, item, now if self.time is None else self.time, self.action, label, self.request)


EventMessages: TypeAlias = EventMessage | Annotated[list[EventMessage], Meta(min_length=1, max_length=MOST_EVENTS)]


class EventOut(msgspec.Struct, frozen=True):
    """What became of an event."""

    id: str
    status: Literal["accepted", "duplicate", "refused"]
    reason: str = ""


class EventsOut(msgspec.Struct, frozen=True):
    """What became of each event, in the order in which they were sent."""

    outcomes: list[EventOut]


class QuestionMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to recommend, to whom."""

    visitor: VisitorId | None = None
    k: Annotated[int, Meta(ge=1, le=MOST_LISTED)] = 20
    item: ItemId | None = None
    items: Annotated[list[ItemId], Meta(max_length=1000)] | None = None
    event: EventMessage | None = None
    exclude: Exclude = "session"
    deny: Annotated[list[ItemId], Meta(max_length=10_000)] = []
    allow: Annotated[list[ItemId], Meta(max_length=100_000)] | None = None
    where: Annotated[dict[str, Annotated[list[str], Meta(max_length=1000)]], Meta(max_length=20)] | None = None
    consent: bool = True
    explain: bool = False
    arm: Text | None = None
    shown: bool = True

    def question(self, now: int) -> Question:
        """Return the question to the engine."""
        consent = self.consent and (self.event is None or self.event.consent)
        return Question(
            visitor=None if self.visitor is None else str(self.visitor),
            k=self.k,
            item=None if self.item is None else str(self.item),
            items=None if self.items is None else tuple(map(str, self.items)),
            event=None if self.event is None else self.event.event(now),
            exclude=self.exclude,
            deny=tuple(map(str, self.deny)),
            allow=None if self.allow is None else tuple(map(str, self.allow)),
            where=None if self.where is None else {name: tuple(labels) for name, labels in self.where.items()},
            consent=consent,
            explain=self.explain,
            arm=self.arm,
            shown=self.shown,
        )


class ItemOut(msgspec.Struct, frozen=True):
    """What is known of an item."""

    item: str
    title: str
    features: dict[str, list[str]]
    known: bool
    in_stock: bool


class ItemsOut(msgspec.Struct, frozen=True):
    """Items that were found."""

    items: list[Listed]


class StockMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is out of stock, and what is there again."""

    out_of_stock: Annotated[list[ItemId], Meta(max_length=100_000)] = []
    in_stock: Annotated[list[ItemId], Meta(max_length=100_000)] = []


class StockOut(msgspec.Struct, frozen=True):
    """How many items are out of stock now."""

    out_of_stock: int


class HeldEvent(msgspec.Struct, frozen=True):
    """An event as it is held."""

    seq: int
    id: str
    item: str
    time: int
    received: int
    action: str
    label: int
    request: str


class VisitorOut(msgspec.Struct, frozen=True):
    """Everything that is held of a visitor."""

    visitor: str
    identities: tuple[str, ...]
    events: list[HeldEvent]
    shown: tuple[Shown, ...]


class MergeMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The id that the visitor goes by from now on."""

    into: VisitorId


class MergeOut(msgspec.Struct, frozen=True):
    """How many events changed hands."""

    moved: int


class ArmOut(msgspec.Struct, frozen=True):
    """One arm and its model."""

    arm: str
    model: str
    version: str
    artifact: str
    weight: float
    items: int
    loaded_at: int
    golden: int
    """Golden requests that it answered before it was let in."""
    previous: list[str]
    role: Role
    """To `answer` its share of the visitors, to fill lists that others leave short, or to be asked unseen."""


class RefusedOut(msgspec.Struct, frozen=True):
    """A model that was not let in."""

    artifact: str
    reason: str
    at: int


class ModelsOut(msgspec.Struct, frozen=True):
    """All arms, and what was refused lately."""

    arms: list[ArmOut]
    refused: list[RefusedOut]


class LoadModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="load"):
    """Load another model for an arm; a new arm starts with weight 0."""

    arm: ArmName
    artifact: Text
    role: Role | None = None
    """What a new arm is for; null: it answers."""
    index: Kind | None = None
    """Build an index for it in the background, if none lies beside it; null: as the server was started."""


class RollBack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="roll_back"):
    """Let the model before answer again."""

    arm: Text


class WeighArms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="weigh"):
    """Set the shares of visitors that arms get."""

    weights: Annotated[dict[str, Annotated[float, Meta(ge=0, le=1e9)]], Meta(min_length=1, max_length=100)]


class AssignArm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="assign"):
    """Say what an arm is for; one that does not answer has weight 0."""

    arm: Text
    role: Role


ModelsMessage: TypeAlias = LoadModel | RollBack | WeighArms | AssignArm


class HealthOut(msgspec.Struct, frozen=True):
    """Whether all is well, and what is not."""

    status: Literal["ok", "not ready"]
    detail: str = ""


class Problem(msgspec.Struct, frozen=True):
    """What went wrong (RFC 9457)."""

    title: str
    status: int
    detail: str
    request: str = ""
    type: str = "about:blank"


def outcome_of(event: Event, outcome: Outcome) -> EventOut:
    """Return what became of an event, under its id."""
    return EventOut(event.id, outcome.status, outcome.reason)


def plain(value: Any) -> Any:
    """Return a message as dictionaries and lists."""
    return msgspec.to_builtins(value)
