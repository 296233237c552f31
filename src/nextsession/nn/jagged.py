"""Jagged: rows of different lengths laid end to end, and the batch of histories a network is given.

No operation on the items of a batch costs anything for padding.  Where one has to see rows side by
side (a convolution, an attention on a GPU), `padded` makes the rectangular view, filled on the
right: a causal state cannot see what follows it, so padding needs no mask there.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextsession.data.log import SessionLog


@dataclass(frozen=True, eq=False)
class Jagged:
    """Rows laid end to end: row `b` is `values[offsets[b]:offsets[b + 1]]`; rows may be empty."""

    values: Tensor  # (N, ...) codes or vectors
    offsets: Tensor  # (B+1,) int64
    longest: int
    """Length of the longest row, known without asking the device."""
    times: Tensor | None = None  # (N,) int64 ms
    asked_at: Tensor | None = None  # (B,) int64 ms, the instant of the question after each row

    @classmethod
    def of(cls, rows: list[list[int]]) -> "Jagged":
        """Lay out nested lists.

        >>> Jagged.of([[4, 9], [], [7]]).offsets
        tensor([0, 2, 2, 3])
        """
        lengths = [len(row) for row in rows]
        offsets = torch.tensor(np.concatenate([[0], np.cumsum(lengths)]), dtype=torch.int64)
        return cls(torch.tensor([x for row in rows for x in row], dtype=torch.int64), offsets, max(lengths, default=0))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Tensor:
        """The length of each row, `(B,)`."""
        return self.offsets[1:] - self.offsets[:-1]

    @cached_property
    def lengths_on_host(self) -> Tensor:
        """The length of each row, `(B,)`, on the CPU; rows that were moved from there know it without asking."""
        return self.lengths.cpu()

    @cached_property
    def rows(self) -> Tensor:
        """The row of each value, `(N,)`."""
        return torch.repeat_interleave(self.lengths, output_size=len(self.values))

    @cached_property
    def positions(self) -> Tensor:
        """The place of each value in its row, `(N,)`; the first is 0."""
        return torch.arange(len(self.values), device=self.offsets.device) - self.offsets[:-1][self.rows]

    @cached_property
    def from_end(self) -> Tensor:
        """How many values of its row come after each value, `(N,)`."""
        return self.lengths[self.rows] - 1 - self.positions

    @cached_property
    def next_times(self) -> Tensor:
        """The time of what follows each value, `(N,)` ms: of the next in the row, or of the question after it."""
        assert self.times is not None
        assert self.asked_at is not None
        some = self.lengths > 0
        following = torch.roll(self.times, -1)
        following[self.offsets[1:][some] - 1] = self.asked_at[some]
        return following

    @cached_property
    def mask(self) -> Tensor:
        """Which places of the padded view hold a value, `(B, L)`."""
        return torch.arange(self.longest, device=self.offsets.device) < self.lengths[:, None]

    def with_values(self, values: Tensor) -> "Jagged":
        """Return the same rows of other values, `(N, ...)`; what is derived from the layout is kept."""
        other = replace(self, values=values)
        for name in ("lengths", "lengths_on_host", "rows", "positions", "from_end", "next_times", "mask"):
            if name in self.__dict__:
                other.__dict__[name] = self.__dict__[name]
        return other

    def padded(self, fill: float = 0.0) -> Tensor:
        """Return the rows side by side, `(B, L, ...)`, filled on the right."""
        view = self.values.new_full((len(self), self.longest, *self.values.shape[1:]), fill)
        view[self.rows, self.positions] = self.values
        return view

    def unpadded(self, view: Tensor) -> Tensor:
        """Return what `(B, L, ...)` holds at the places of our values, `(N, ...)`."""
        return view[self.rows, self.positions]

    def last(self) -> Tensor:
        """Return the last value of each row, `(B, ...)`; zeros for an empty one."""
        if len(self.values) == 0:
            return self.values.new_zeros((len(self), *self.values.shape[1:]))
        found = self.values[(self.offsets[1:] - 1).clamp(min=0)]
        return found * (self.lengths > 0).to(found.dtype).view(-1, *[1] * (found.dim() - 1))

    def sum(self) -> Tensor:
        """Return the sum of each row of vectors, `(B, D)`; zeros for an empty one."""
        return self.values.new_zeros((len(self), *self.values.shape[1:])).index_add(0, self.rows, self.values)

    def mean(self) -> Tensor:
        """Return the mean of each row of vectors, `(B, D)`; zeros for an empty one."""
        return self.sum() / self.lengths.clamp(min=1).to(self.values.dtype)[:, None]

    def to(self, device: torch.device) -> "Jagged":
        """Return the rows on another device."""
        if self.offsets.device == device:
            return self

        def move(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.to(device, non_blocking=True)

        moved = Jagged(
            self.values.to(device, non_blocking=True),
            self.offsets.to(device, non_blocking=True),
            self.longest,
            move(self.times),
            move(self.asked_at),
        )
        moved.__dict__["lengths_on_host"] = self.lengths_on_host
        return moved


@dataclass(frozen=True, eq=False)
class Batch:
    """Histories on a device: what a network is given.

    `events` are the item codes, one row a history.  `sessions` says where sessions begin: a `Jagged`
    whose rows are the same histories and whose values are the places in `events` at which each
    session starts.
    """

    events: Jagged
    sessions: Jagged
    labels: Tensor | None = None  # (N,) int64: 1 wanted, 0 shown and ignored; None: all wanted
    actions: Tensor | None = None  # (N,) int64 places in the list of actions; -1 unknown
    weights: Tensor | None = None  # (B,) weight of each row in the loss; None: all 1

    def __len__(self) -> int:
        """Return the number of histories."""
        return len(self.events)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on another device."""
        if self.events.offsets.device == device:
            return self

        def move(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.to(device, non_blocking=True)

        return Batch(
            self.events.to(device), self.sessions.to(device), move(self.labels), move(self.actions), move(self.weights)
        )

    @cached_property
    def session_of_event(self) -> Tensor:
        """The session of each event, `(N,)`, counted over the whole batch."""
        marks = torch.zeros(len(self.events.values), dtype=torch.int64, device=self.events.offsets.device)
        marks[self.sessions.values] = 1
        return torch.cumsum(marks, 0) - 1

    @classmethod
    def of_log(cls, log: SessionLog, asked_at: NDArray[np.int64], actions: NDArray[np.int64] | None = None) -> "Batch":
        """Return a batch of the rows of a log.

        Args:
            log: In the codes of the model.
            asked_at: `(B,)` ms, the instant of the question after each row.
            actions: `(N,)` places in the model's own list of actions; without them actions are left out.
        """
        offsets = log.event_offsets
        lengths = np.diff(offsets)
        events = Jagged(
            torch.from_numpy(log.items.astype(np.int64)),
            torch.from_numpy(np.ascontiguousarray(offsets, np.int64)),
            int(lengths.max(initial=0)),
            torch.from_numpy(np.array(log.times, np.int64)),
            torch.from_numpy(np.array(asked_at, np.int64)),
        )
        sessions = Jagged(
            torch.from_numpy(np.array(log.session_offsets[:-1], np.int64)),
            torch.from_numpy(np.array(log.user_offsets, np.int64)),
            int(np.diff(log.user_offsets).max(initial=0)),
            torch.from_numpy(np.array(log.session_starts, np.int64)),
            events.asked_at,
        )
        everywhere = log.labels.strides == (0,) or bool(np.all(log.labels == 1))
        labels = None if everywhere else torch.from_numpy(log.labels.astype(np.int64))
        return cls(events, sessions, labels, None if actions is None else torch.from_numpy(actions))
