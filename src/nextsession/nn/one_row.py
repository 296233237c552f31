"""One row alone: what an exported network is given, so that nothing in it depends on how rows are laid out.

The same names as in `Jagged` and `Batch`, each in a form that a graph of operations can hold for rows of any length.
Operations that are compiled otherwise take their plain forms for one row while a network is exported.
"""

from functools import cached_property

import torch
from torch import Tensor

from nextsession.nn.jagged import Batch, Jagged


class OneRow(Jagged):
    """A single row that is not empty."""

    @classmethod
    def of_values(cls, values: Tensor, times: Tensor | None = None, asked_at: Tensor | None = None) -> "OneRow":
        """Take values `(N, ...)`, their times `(N,)`, and the instant of the question, `(1,)`."""
        n = values.shape[0]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.full((1,), n, dtype=torch.int64)])
        return cls(values, offsets, n, times, asked_at)

    @cached_property
    def rows(self) -> Tensor:
        """The row of each value: the first, `(N,)`."""
        return torch.zeros(self.longest, dtype=torch.int64)

    @cached_property
    def positions(self) -> Tensor:
        """The place of each value, `(N,)`; the first is 0."""
        return torch.arange(self.longest)

    @cached_property
    def next_times(self) -> Tensor:
        """The time of what follows each value, `(N,)` ms."""
        assert self.times is not None
        assert self.asked_at is not None
        return torch.cat([self.times[1:], self.asked_at])

    def last(self) -> Tensor:
        """Return the last value, `(1, ...)`."""
        return self.values[-1:]

    def sum(self) -> Tensor:
        """Return the sum of the vectors, `(1, D)`."""
        return self.values.sum(0, keepdim=True)

    def mean(self) -> Tensor:
        """Return their mean, `(1, D)`."""
        return self.values.mean(0, keepdim=True)


class Parts(Jagged):
    """One row cut into sessions, none of them empty: sums are products with a matrix that says what is in which."""

    @cached_property
    def _members(self) -> Tensor:
        return (torch.arange(self.offsets.shape[0] - 1)[:, None] == self.rows[None]).to(self.values.dtype)

    def sum(self) -> Tensor:
        """Return the sum of each session, `(S, D)`."""
        return self._members @ self.values

    def mean(self) -> Tensor:
        """Return the mean of each session, `(S, D)`."""
        members = self._members
        return (members @ self.values) / members.sum(1, keepdim=True)


class BatchOfOne(Batch):
    """One history: `(N,)` events in `(S,)` sessions."""

    @classmethod
    def of_row(
        cls,
        vectors: Tensor,
        labels: Tensor,
        actions: Tensor,
        times: Tensor,
        asked_at: Tensor,
        starts: Tensor,
        session_of: Tensor,
    ) -> "BatchOfOne":
        """Take a history.

        Args:
            vectors: `(N, W)` what is known of the items.
            labels: `(N,)` int64, 1 wanted, 0 ignored.
            actions: `(N,)` int64 kinds.
            times: `(N,)` int64 ms.
            asked_at: `(1,)` int64 ms.
            starts: `(S,)` int64, the event at which each session begins.
            session_of: `(N,)` int64, the session of each event.
        """
        events = OneRow.of_values(vectors, times, asked_at)
        sessions = OneRow.of_values(starts, times[starts], asked_at)
        batch = cls(events, sessions, labels, actions)
        batch.__dict__["session_of_event"] = session_of
        return batch

    def by_session(self, values: Tensor) -> Parts:
        """Lay out vectors of the events, `(N, D)`, session by session."""
        offsets = torch.cat([self.sessions.values, self.sessions.values.new_full((1,), values.shape[0])])
        parts = Parts(values, offsets, self.events.longest)
        parts.__dict__["rows"] = self.session_of_event
        return parts
