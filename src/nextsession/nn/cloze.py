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
        asked = appended(batch.events, self.mask_code, len(self.positions))
        return self.head.queries(self.states(asked, asked.offsets[1:] - 1))

    def examples(self, batch: Batch) -> Examples:
        """Hide events of every row, and return a query for each of them.

        Events shown and ignored are read but never hidden.
        """
        events = batch.events
        hidden = hidden_events(events, self.masked, self.last_only, None if batch.labels is None else batch.labels == 1)
        at = torch.nonzero(hidden).squeeze(1)
        read = events.with_values(events.values.masked_fill(hidden, self.mask_code))
        rows = events.rows[at]
        weights = None if batch.weights is None else batch.weights[rows]
        return Examples(self.head.queries(self.states(read, at)), events.values[at], users=rows, weights=weights)

    def states(self, events: Jagged, at: Tensor) -> Tensor:
        """Return the states at the places `at` of rows of codes, `(M, D)`."""
        places = events.positions.clamp(max=len(self.positions) - 1)
        x = self.items(events.values) + functional.embedding(places, self.positions)
        x = dropout(self.norm(x), self.rate, self.training)
        return self.encoder(events.with_values(x), at)  # type: ignore[no-any-return]


def hidden_events(events: Jagged, share: float, last_only: float, allowed: Tensor | None = None) -> Tensor:
    """Draw which events are hidden, `(N,)` bool, by torch's default generator.

    Of a row's `n` allowed events `max(1, round(share n))` are, each choice as likely as any other; or,
    with the chance `last_only`, the last allowed one alone.

    Args:
        events: Rows of anything.
        share: Of a row's events.
        last_only: Chance of a row.
        allowed: `(N,)` which events may be hidden; None: all.
    """
    device, n = events.offsets.device, len(events.values)
    if n == 0:
        return torch.zeros(0, dtype=torch.bool, device=device)
    if allowed is None:
        sizes, from_end = events.lengths, events.from_end
    else:
        counts = functional.pad(allowed.cumsum(0), (1, 0))  # allowed events before each place
        sizes = counts[events.offsets[1:]] - counts[events.offsets[:-1]]
        from_end = counts[events.offsets[1:]][events.rows] - counts[1:]
    many = (sizes.double() * share).round().clamp(min=1).to(torch.int64)
    alone = torch.rand(len(events), device=device) < last_only
    keys = torch.rand(n, dtype=torch.float64, device=device)
    if allowed is not None:
        keys = torch.where(allowed, keys, 1.0)  # after all that are allowed
    order = torch.argsort(events.rows + keys / 2)
    ranks = torch.empty_like(order)
    ranks[order] = events.positions  # rows stay in their order, and so do the places of each
    hidden = torch.where(alone[events.rows], from_end == 0, ranks < many[events.rows])
    return hidden if allowed is None else hidden & allowed


def appended(events: Jagged, code: int, longest: int) -> Jagged:
    """Put `code` after each row; the oldest of a row make room until it is no longer than `longest`."""
    kept = torch.nonzero(events.from_end < longest - 1).squeeze(1)
    lengths = events.lengths.clamp(max=longest - 1) + 1
    offsets = functional.pad(lengths.cumsum(0), (1, 0))
    values = events.values.new_full((len(kept) + len(events),), code)
    values[torch.arange(len(kept), device=kept.device) + events.rows[kept]] = events.values[kept]
    return Jagged(values, offsets, min(events.longest, longest - 1) + 1)
