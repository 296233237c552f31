"""Networks: what a batch of histories is asked, and what it teaches.

An encoder turns vectors into vectors and knows neither items nor targets.  A network puts items in
front of it and a head behind it, and says which states should have found which items.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.features import SideFeatures
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.ops.dropout import dropout


class CausalEncoder(nn.Module):
    """Encodes every prefix of each row in one pass: the state at `t` never depends on `t + 1`."""

    def forward(self, rows: Jagged) -> Tensor:
        """Map vectors `(N, D)` to states `(N, D)`."""
        raise NotImplementedError

    def last(self, rows: Jagged) -> Tensor:
        """Return the state after the last value of each row, `(B, D)`; anything for an empty one."""
        return rows.with_values(self(rows)).last()


class RowEncoder(nn.Module):
    """Encodes each row of vectors as one vector."""

    def forward(self, rows: Jagged) -> Tensor:
        """Map vectors `(N, D)` to one state a row, `(B, D)`."""
        raise NotImplementedError


class Head(nn.Module):
    """How states meet items: the score of an item is a dot product, plus a bias where there is one.

    Args:
        items: The vectors of the input.
        tied: Are the vectors of the output the same?  Otherwise there is a second table.
        width: Width of the states, if it is not that of the items (separate tables only).
        bias: Has each item a bias?
        normalise: Are states and items brought to length 1 first (`L2`)?
        temperature: Scores are divided by this.
    """

    def __init__(
        self,
        items: ItemEmbedding,
        *,
        tied: bool = True,
        width: int | None = None,
        bias: bool = False,
        normalise: bool = False,
        temperature: float = 1.0,
    ) -> None:
        """Tie the head to the items, or draw a table of its own."""
        super().__init__()
        self.items = items
        self.output = None if tied else ItemEmbedding(items.n_items, width or items.dim, sparse=items.sparse)
        self.bias = nn.Parameter(torch.zeros(items.n_items)) if bias else None
        self.normalise, self.temperature = normalise, temperature

    @property
    def sparse(self) -> bool:
        """Do gradients of the items hold only the rows of a batch?"""
        return self.items.sparse

    def queries(self, states: Tensor) -> Tensor:
        """Turn states into queries, `(M, D)`."""
        if self.normalise:
            states = F.normalize(states, dim=-1, eps=1e-6)
        return states / self.temperature if self.temperature != 1 else states

    def table(self) -> tuple[Tensor, Tensor | None]:
        """Return the vectors of all items, `(V, D)`, and their biases, `(V,)`."""
        weight = (self.output or self.items).table()
        return (F.normalize(weight, dim=-1, eps=1e-6) if self.normalise else weight), self.bias

    def rows(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the vectors of some items, `(...)` to `(..., D)`, and their biases."""
        weight = (self.output or self.items)(codes)
        if self.normalise:
            weight = F.normalize(weight, dim=-1, eps=1e-6)
        return weight, None if self.bias is None else self.bias[codes]


@dataclass(frozen=True, eq=False)
class Examples:
    """Queries, and the items that each should have found."""

    queries: Tensor  # (M, D) already through `Head.queries`
    positives: Tensor  # (P,) int64 item codes
    of_query: Tensor | None = None  # (P,) query of each positive, never falling; None: one each, P == M
    users: Tensor | None = None  # (M,) row of the batch that each query comes from
    shown: Tensor | None = None  # (S,) int64 items shown and ignored: hard negatives
    shown_of: Tensor | None = None  # (S,) their query
    weights: Tensor | None = None  # (M,) weight of each query in the mean; None: all 1

    def __len__(self) -> int:
        """Return the number of positives."""
        return len(self.positives)


class Network(nn.Module, ABC):
    """Maps histories to queries in the space of the items."""

    head: Head

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return the query that each history asks, `(B, D)`; anything for an empty one."""

    @abstractmethod
    def examples(self, batch: Batch) -> Examples:
        """Return what the batch has to teach."""


class Input(nn.Module):
    """Vectors of the events of a batch: those of the items, and of what the model knows beside them.

    Args:
        items: The vectors of the items.
        positions: Longest row with a learned vector for each place; 0: the model knows no places.
        from_end: Are places counted from the newest event (else from the oldest that is kept)?
        scale: Are the vectors of the items multiplied by the root of their width first?
        rate: Dropout of the sum.
        n_actions: Number of kinds of events with a vector each; 0: kinds are not read.
        ignored: Has an event that was shown and ignored a vector that says so?
        position_std: Standard deviation of the normal distribution the vectors of places are drawn from.
        features: What is mixed into the vectors of the items.  If it has room for vectors `beside` them, those of the
            kind and of the label are mixed in too (SessionRec, eq. 4), and otherwise added.
    """

    def __init__(
        self,
        items: ItemEmbedding,
        *,
        positions: int = 0,
        from_end: bool = False,
        scale: bool = False,
        rate: float = 0.0,
        n_actions: int = 0,
        ignored: bool = False,
        position_std: float = 0.02,
        features: SideFeatures | None = None,
    ) -> None:
        """Draw the vectors."""
        super().__init__()
        self.items, self.from_end, self.rate, self.features = items, from_end, rate, features
        self.scale = items.dim**0.5 if scale else 1.0
        self.positions = nn.Parameter(torch.empty(positions, items.dim)) if positions else None
        if self.positions is not None:
            nn.init.normal_(self.positions, std=position_std)
        self.mixed = features is not None and features.beside > 0
        width = features.width if features is not None and self.mixed else items.dim
        self.actions = nn.Embedding(n_actions + 1, width) if n_actions else None
        self.labels = nn.Embedding(2, width) if ignored else None
        for table in (self.actions, self.labels):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    def forward(self, batch: Batch) -> Tensor:
        """Return the vectors of the events, `(N, D)`."""
        x = self.items(batch.events.values)
        kinds = self._kinds(batch)
        if self.features is not None:
            x = self.features(batch.events.values, x, *(kinds if self.mixed else ()))
        if self.scale != 1:
            x = x * self.scale
        if self.positions is not None:
            places = batch.events.from_end if self.from_end else batch.events.positions
            x = x + F.embedding(places.clamp(max=len(self.positions) - 1), self.positions)
        for kind in () if self.mixed else kinds:
            x = x + kind
        return dropout(x, self.rate, self.training)

    def _kinds(self, batch: Batch) -> list[Tensor]:
        """Return the vectors of the kind and of the label of each event, `(N, width)` each, as far as they are read."""
        found, events = [], batch.events.values
        if self.actions is not None and (batch.actions is not None or self.mixed):
            found.append(self.actions(torch.zeros_like(events) if batch.actions is None else batch.actions + 1))
        if self.labels is not None:
            found.append(self.labels(torch.ones_like(events) if batch.labels is None else batch.labels))
        return found


class NextItem(Network):
    """Every event of a row is to be foretold from those before it, all in one pass."""

    def __init__(self, inputs: Input, encoder: CausalEncoder, head: Head) -> None:
        """Put together what reads events, what encodes them, and what scores items."""
        super().__init__()
        self.inputs, self.encoder, self.head = inputs, encoder, head

    def forward(self, batch: Batch) -> Tensor:
        """Return the query after the last event of each row, `(B, D)`."""
        return self.head.queries(self.encoder.last(batch.events.with_values(self.inputs(batch))))

    def examples(self, batch: Batch) -> Examples:
        """Return a query after every event but the last of a row, and the event that followed it.

        Events shown and ignored are read but never foretold.
        """
        known, targets, wanted = shifted(batch)
        states = self.encoder(known.events.with_values(self.inputs(known)))
        rows = known.events.rows
        if wanted is not None:
            states, targets, rows = states[wanted], targets[wanted], rows[wanted]
        weights = None if batch.weights is None else batch.weights[rows]
        return Examples(self.head.queries(states), targets, users=rows, weights=weights)


class LastItem(Network):
    """The last event of a row is to be foretold from all before it."""

    def __init__(self, inputs: Input, encoder: RowEncoder, head: Head) -> None:
        """Put together what reads events, what encodes rows, and what scores items."""
        super().__init__()
        self.inputs, self.encoder, self.head = inputs, encoder, head

    def forward(self, batch: Batch) -> Tensor:
        """Return the query of each row, `(B, D)`."""
        return self.head.queries(self.encoder(batch.events.with_values(self.inputs(batch))))

    def examples(self, batch: Batch) -> Examples:
        """Return the query of each row without its last event, which is the target; rows of one event are left out."""
        known, _, _ = shifted(batch)
        some = known.events.lengths > 0
        targets = batch.events.last()[some]
        users = torch.arange(len(batch), device=some.device)[some]
        weights = None if batch.weights is None else batch.weights[some]
        return Examples(self.forward(known)[some], targets, users=users, weights=weights)


def shifted(batch: Batch) -> tuple[Batch, Tensor, Tensor | None]:
    """Return the batch without the last event of each row, and the event after each that is left.

    Returns:
        The shorter batch, asked at the time of what was taken off; `(N',)` codes of what follows
        each of its events; and `(N',)` whether that was wanted, None if everything was.
    """
    events = batch.events
    n, device = len(events.values), events.offsets.device
    keep = torch.ones(n, dtype=torch.bool, device=device)
    some = events.lengths > 0
    last = events.offsets[1:][some] - 1
    keep[last] = False
    follows = torch.ones(n, dtype=torch.bool, device=device)
    follows[events.offsets[:-1][some]] = False
    lengths = (events.lengths - 1).clamp(min=0)
    offsets = torch.zeros_like(events.offsets)
    torch.cumsum(lengths, 0, out=offsets[1:])
    asked = None
    if events.times is not None and events.asked_at is not None:
        asked = events.asked_at.clone()
        asked[some] = events.times[last]
    left = n - len(last) if device.type == "cpu" else None
    kept = torch.nonzero(keep).squeeze(1) if left != 0 else last[:0]
    shorter = Jagged(
        events.values[kept],
        offsets,
        max(events.longest - 1, 0),
        None if events.times is None else events.times[kept],
        asked,
    )
    known = Batch(
        shorter,
        _sessions(batch, keep, kept, shorter),
        None if batch.labels is None else batch.labels[kept],
        None if batch.actions is None else batch.actions[kept],
        batch.weights,
    )
    wanted = None if batch.labels is None else batch.labels[follows] == 1
    return known, events.values[follows], wanted


def _sessions(batch: Batch, keep: Tensor, kept: Tensor, events: Jagged) -> Jagged:
    """Return where sessions begin once some events are gone; a session without events goes too."""
    sessions = batch.sessions
    stay = keep[sessions.values]  # only the last event of a row goes: a session goes if it was that event alone
    place = torch.cumsum(keep, 0) - 1
    counts = torch.zeros(len(batch), dtype=torch.int64, device=keep.device).index_add(
        0, sessions.rows, stay.to(torch.int64)
    )
    offsets = torch.zeros_like(sessions.offsets)
    torch.cumsum(counts, 0, out=offsets[1:])
    values = place[sessions.values[stay]]
    times = None if sessions.times is None else sessions.times[stay]
    return Jagged(values, offsets, sessions.longest, times, events.asked_at)
