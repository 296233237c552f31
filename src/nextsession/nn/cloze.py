"""Cloze: some events of a row are hidden, and are to be found from those on both sides of them.

Sun et al., BERT4Rec, CIKM 2019, after Devlin et al., BERT, NAACL 2019, but every chosen event is
hidden behind the same token: none stays, and none becomes another.
"""

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.networks import Examples, Head, Network
from nextsession.nn.one_row import OneRow
from nextsession.nn.ops.dropout import dropout
from nextsession.nn.transformer import Transformer


class TransformedHead(Head):
    """Items are met by `LN(gelu(W state + b))`."""

    def __init__(self, items: ItemEmbedding, *, eps: float = 1e-12, tied: bool = True, bias: bool = True) -> None:
        """Draw the map."""
        super().__init__(items, tied=tied, bias=bias)
        self.dense = nn.Linear(items.dim, items.dim)
        self.norm = nn.LayerNorm(items.dim, eps=eps)

    def queries(self, states: Tensor) -> Tensor:
        """Turn states into queries, `(M, D)`."""
        return super().queries(self.norm(functional.gelu(self.dense(states))))


class Cloze(Network):
    """Hidden events are foretold in training; in use, a hidden event stands after the history.

    Args:
        items: Vectors of the items, and of one special token: that which hides.
        encoder: Reads both directions.
        head: How states meet items.
        length: Longest row, the hidden event included; each place has a learned vector.
        masked: Share of a row that is hidden: `max(1, round(share * length))` of its events.
        last_only: Chance that the last event of a row is hidden and no other, as in use.
        rate: Dropout of the input.
        eps: Of the layer norm of the input.
    """

    def __init__(
        self,
        items: ItemEmbedding,
        encoder: Transformer,
        head: Head,
        *,
        length: int,
        masked: float,
        last_only: float,
        rate: float,
        eps: float = 1e-12,
    ) -> None:
        """Put the parts together."""
        super().__init__()
        self.items, self.encoder, self.head = items, encoder, head
        self.masked, self.last_only, self.rate = masked, last_only, rate
        self.positions = nn.Parameter(torch.empty(length, items.dim).normal_(std=0.02))
        self.norm = nn.LayerNorm(items.dim, eps=eps)

    @property
    def mask_code(self) -> int:
        """The code of what hides an event."""
        return self.items.n_items

    def forward(self, batch: Batch) -> Tensor:
        """Return the query of a hidden event after each history, `(B, D)`; the oldest events make room for it."""
        if isinstance(batch.events, OneRow):  # of vectors, and no longer than leaves room for the hidden one
            vectors = torch.cat([batch.events.values, self.items(torch.tensor([self.mask_code]))])
            alone = OneRow.of_values(vectors)
            return self.head.queries(self._encoded(alone, alone.offsets[1:] - 1))
        asked = appended(batch.events, self.mask_code, len(self.positions))
        return self.head.queries(self.states(asked, asked.offsets[1:] - 1))

    def examples(self, batch: Batch) -> Examples:
        """Hide events of every row, and return a query for each of them.

        Events shown and ignored are read but never hidden.
        """
        events = batch.events
        at = hidden_events(events, self.masked, self.last_only, None if batch.labels is None else batch.labels == 1)
        read = events.with_values(events.values.index_fill(0, at, self.mask_code))
        rows = events.rows[at]
        weights = None if batch.weights is None else batch.weights[rows]
        return Examples(self.head.queries(self.states(read, at)), events.values[at], users=rows, weights=weights)

    def states(self, events: Jagged, at: Tensor) -> Tensor:
        """Return the states at the places `at` of rows of codes, `(M, D)`."""
        return self._encoded(events.with_values(self.items(events.values)), at)

    def _encoded(self, events: Jagged, at: Tensor) -> Tensor:
        places = events.positions.clamp(max=len(self.positions) - 1)
        x = events.values + functional.embedding(places, self.positions)
        x = dropout(self.norm(x), self.rate, self.training)
        return self.encoder(events.with_values(x), at)  # type: ignore[no-any-return]


def hidden_events(events: Jagged, share: float, last_only: float, allowed: Tensor | None = None) -> Tensor:
    """Draw which events are hidden, by torch's default generators; without waiting for the device if all are allowed.

    Of a row's `n` allowed events `max(1, round(share n))` are, each choice as likely as any other; or,
    with the chance `last_only`, the last allowed one alone.

    Args:
        events: Rows of anything.
        share: Of a row's events.
        last_only: Chance of a row.
        allowed: `(N,)` which events may be hidden; None: all.

    Returns:
        Their places, `(M,)`: row after row, in no order within a row.
    """
    device, sizes, from_end = events.offsets.device, events.lengths_on_host, events.from_end
    if allowed is not None:
        counts = functional.pad(allowed.cumsum(0), (1, 0))  # allowed events before each place
        ends = counts[events.offsets]
        sizes, from_end = ends.diff().cpu(), ends[1:][events.rows] - counts[1:]
    alone = torch.rand(len(events)) < last_only
    many = (sizes.double() * share).round().clamp(min=1).to(torch.int64)
    many = torch.where(alone, 1, many).minimum(sizes)
    total = int(many.sum())
    alone, many = alone.to(device, non_blocking=True), many.to(device, non_blocking=True)

    keys = torch.rand(len(events.values), dtype=torch.float64, device=device)
    keys = torch.where(alone[events.rows] & (from_end == 0), -1.0, keys)  # before all others of the row
    if allowed is not None:
        keys = torch.where(allowed, keys, 2.0)  # after them
    drawn = torch.argsort(4.0 * events.rows + keys)  # rows stay in their order
    rows = torch.repeat_interleave(many, output_size=total)
    within = torch.arange(total, device=device) - (many.cumsum(0) - many)[rows]
    return drawn[events.offsets[:-1][rows] + within]


def appended(events: Jagged, code: int, longest: int) -> Jagged:
    """Put `code` after each row; the oldest of a row make room until it is no longer than `longest`."""
    kept = torch.nonzero(events.from_end < longest - 1).squeeze(1)
    lengths = events.lengths.clamp(max=longest - 1) + 1
    offsets = functional.pad(lengths.cumsum(0), (1, 0))
    values = events.values.new_full((len(kept) + len(events),), code)
    values[torch.arange(len(kept), device=kept.device) + events.rows[kept]] = events.values[kept]
    return Jagged(values, offsets, min(events.longest, longest - 1) + 1)
