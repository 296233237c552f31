"""Encoders of sessions: the vectors of the events of a session become one vector (SessionRec, section 3.4).

Every encoder costs in proportion to the events; nothing is computed for padding, and a mean is
divided by how many events there are.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.one_row import BatchOfOne
from nextsession.nn.recurrent import GRU
from nextsession.nn.transformer import BlockForm, Transformer

_PLACES = 64
"""Places of a session with a vector of their own; later events share the last."""


class SessionEncoder(nn.Module, ABC):
    """Encodes each session as one vector (the item-based session encoder, ISE)."""

    @abstractmethod
    def forward(self, sessions: Jagged, wanted: Tensor | None) -> Tensor:
        """Map vectors of events to vectors of sessions.

        Args:
            sessions: `(N, D)` vectors, one row a session; no row is empty.
            wanted: `(N,)` float, 1 for an event that was wanted and 0 for one that was ignored; None: all were.

        Returns:
            `(S, D)`.
        """


class Mean(SessionEncoder):
    """The mean over all events, each as often as it occurs."""

    def forward(self, sessions: Jagged, wanted: Tensor | None) -> Tensor:
        """Return `(S, D)`."""
        return sessions.mean()


class Max(SessionEncoder):
    """The greatest value of each number.

    Args:
        relu: Are negative numbers taken as 0 first?
    """

    def __init__(self, *, relu: bool = False) -> None:
        """Choose between the two forms."""
        super().__init__()
        self.relu = relu

    def forward(self, sessions: Jagged, wanted: Tensor | None) -> Tensor:
        """Return `(S, D)`."""
        values = sessions.values.relu() if self.relu else sessions.values
        greatest = values.new_full((sessions.offsets.shape[0] - 1, values.shape[1]), float("-inf"))
        index = sessions.rows[:, None].expand_as(values)
        return greatest.scatter_reduce(0, index, values, "amax", include_self=True)


class Recurrent(SessionEncoder):
    """The last state of a GRU that reads the events in the order in which they were shown."""

    def __init__(self, dim: int, layers: int) -> None:
        """Draw the weights."""
        super().__init__()
        self.unit = GRU(dim, layers)

    def forward(self, sessions: Jagged, wanted: Tensor | None) -> Tensor:
        """Return `(S, D)`."""
        return self.unit.last(sessions)


class Attentive(SessionEncoder):
    """The mean of what a two-way Transformer makes of the events; each of the first 64 places has a vector."""

    def __init__(self, dim: int, layers: int, heads: int, rate: float) -> None:
        """Draw the weights."""
        super().__init__()
        self.places = nn.Parameter(torch.empty(_PLACES, dim))
        nn.init.normal_(self.places, std=0.02)
        self.blocks = Transformer(dim, layers, BlockForm(heads=heads, causal=False, rate=rate))

    def forward(self, sessions: Jagged, wanted: Tensor | None) -> Tensor:
        """Return `(S, D)`."""
        placed = sessions.values + self.places[sessions.positions.clamp(max=_PLACES - 1)]
        return sessions.with_values(self.blocks(sessions.with_values(placed))).mean()


class Separate(SessionEncoder):
    """Two means, of what was wanted and of what was ignored, and how many there were of each, mixed by a linear map.

    Where a session shows ten times more than is wanted, one mean over all drowns what was wanted.

    Args:
        dim: Width of the vectors.
        latest: Is the last event that was wanted mixed in as well?  A mean does not tell where a visit ended, and a
            wish that outlives the visit is the one that it ended with.
    """

    def __init__(self, dim: int, *, latest: bool = False) -> None:
        """Let the vector begin as the mean of what was wanted."""
        super().__init__()
        self.latest = latest
        self.mix = nn.Linear((2 + latest) * dim + 2, dim)
        with torch.no_grad():
            self.mix.weight.mul_(0.1)
            self.mix.weight[:, :dim] += torch.eye(dim)
            self.mix.bias.zero_()

    def forward(self, sessions: Jagged, wanted: Tensor | None) -> Tensor:
        """Return `(S, D)`."""
        values = sessions.values
        liked = torch.ones(values.shape[0], device=values.device) if wanted is None else wanted
        shares = torch.stack([liked, 1 - liked], dim=1).to(values.dtype)
        counts = sessions.with_values(shares).sum()  # (S, 2)
        parts = [
            sessions.with_values(values * shares[:, i : i + 1]).sum() / counts[:, i : i + 1].clamp(min=1)
            for i in (0, 1)
        ]
        if self.latest:
            parts.append(_last(sessions, liked))
        return self.mix(torch.cat([*parts, counts.log1p()], dim=1))  # type: ignore[no-any-return]


def _last(sessions: Jagged, liked: Tensor) -> Tensor:
    """Return the last event of each session that was wanted, `(S, D)`; zeros where none was."""
    values = sessions.values
    number = torch.arange(1, values.shape[0] + 1, device=values.device)
    last = number.new_zeros(sessions.offsets.shape[0] - 1)
    last = last.scatter_reduce(0, sessions.rows, number * (liked > 0), "amax", include_self=True)
    return torch.cat([values.new_zeros(1, values.shape[1]), values])[last]


class Weighed(SessionEncoder):
    """A mean in which each event weighs what a small network says of its vector: softmax over the session."""

    def __init__(self, dim: int) -> None:
        """Draw the weights."""
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))

    def forward(self, sessions: Jagged, wanted: Tensor | None) -> Tensor:
        """Return `(S, D)`."""
        scores = self.weigh(sessions.values)  # (N, 1)
        highest = scores.detach().new_full((sessions.offsets.shape[0] - 1, 1), float("-inf"))
        highest = highest.scatter_reduce(0, sessions.rows[:, None], scores.detach(), "amax")
        weights = (scores - highest[sessions.rows]).exp()
        total = sessions.with_values(weights).sum()
        return sessions.with_values(weights * sessions.values).sum() / total


def sessions_of(batch: Batch, values: Tensor) -> Jagged:
    """Lay out the events of a batch session by session: `(N, D)` as rows of sessions."""
    if isinstance(batch, BatchOfOne):
        return batch.by_session(values)
    starts = batch.sessions.values
    offsets = torch.cat([starts, starts.new_full((1,), len(values))])
    longest = batch.events.longest  # no session is longer; on a GPU the true number would have to be waited for
    if offsets.device.type == "cpu" and len(starts):
        longest = int((offsets[1:] - offsets[:-1]).max())
    return Jagged(values, offsets, longest)
