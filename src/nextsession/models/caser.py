"""Caser: the latest events are an image, and convolutions look for patterns in it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from nextsession.answering import Facts
from nextsession.data.log import SessionLog
from nextsession.neural import NeuralRecommender, NeuralSettings
from nextsession.nn.batches import Rows
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.features import SideFeatures
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.losses import BCE, Loss
from nextsession.nn.negatives import Uniform
from nextsession.nn.networks import Examples, Head, Network
from nextsession.nn.ops.dropout import dropout
from nextsession.slices import Slices, Windows, slices


class CaserSettings(NeuralSettings):
    """Settings of `Caser`."""

    max_length: int = Field(default=5, ge=1)
    """Newest events that are read: the length of the window, `L`."""
    targets: int = Field(default=3, ge=1)
    """Events after a window that are all to be foretold from it, `T`."""
    windows: Windows = "prefixes"
    """Which windows of `L + T` events are trained on: by default those at every place of a row."""
    beginnings: bool = True
    """Train also on the windows at the beginning of a row, where fewer events came before?  As published only
    rows that are shorter than a window have such, one each."""
    dim: int = Field(default=50, ge=1)
    """Width of the vectors, `D`."""
    horizontal: int = Field(default=16, ge=0)
    """Filters of each height from 1 to `L` that see whole events, and keep the strongest answer."""
    vertical: int = Field(default=4, ge=0)
    """Filters that each sum the events of a window, weighed by place."""
    user: Literal["none", "default"] = "none"
    """Is a learned vector, the same for everybody, joined to what the window says?"""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of what the filters found set to 0 while training."""
    epochs: int = Field(default=50, ge=1)
    """Passes over the rows of training, at most."""
    batch_size: int = Field(default=512, ge=1)
    """Windows in a step, at most."""
    weight_decay: float = Field(default=1e-6, ge=0)
    """L2 penalty (`adam`, `adagrad`, `sgd`), or decay beside the gradient (`adamw`)."""
    loss: Loss = BCE(negatives=Uniform(n=3), average=True)
    """What training makes small."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"caser_2018": {"beginnings": False, "user": "default"}}

    @model_validator(mode="after")
    def _looks_for_something(self) -> "CaserSettings":
        if self.horizontal == self.vertical == 0:
            raise ValueError("horizontal and vertical must not both be 0: nothing would be read")
        return self


class WindowFilters(nn.Module):
    """Convolutions over windows of `L` events: patterns of some events in a row, and weighted sums of all.

    Args:
        length: `L`.
        dim: Width of an event, `D`.
        horizontal: Filters of each height `1 .. L`, as wide as an event: rectified, and the largest of all
            places is kept.
        vertical: Filters as high as the window and one number wide, without activation: each gives `D` numbers.
    """

    def __init__(self, length: int, dim: int, *, horizontal: int, vertical: int) -> None:
        """Draw the weights, as those of convolutions of these shapes are drawn."""
        super().__init__()
        self.heights = nn.ModuleList(nn.Linear(h * dim, horizontal) for h in range(1, length + 1) if horizontal)
        self.vertical = nn.Linear(length, vertical) if vertical else None
        self.width = vertical * dim + horizontal * length

    def forward(self, windows: Tensor) -> Tensor:
        """Map windows, `(M, L, D)`, to what was found, `(M, vertical * D + horizontal * L)`."""
        length, dim = windows.shape[1:]
        found = []
        if self.vertical is not None:
            found.append(self.vertical(windows.transpose(1, 2)).transpose(1, 2).flatten(1))
        if len(self.heights):
            places = range(length, 0, -1)  # of filters of height 1, 2, ..
            kernels = [slid(f.get_parameter("weight"), n, dim) for f, n in zip(self.heights, places, strict=True)]
            everywhere = functional.linear(windows.flatten(1), torch.cat(kernels))
            by_height = torch.split(everywhere, [len(k) for k in kernels], 1)
            seen = [part.view(len(part), -1, n) for part, n in zip(by_height, places, strict=True)]
            best = torch.cat([part.max(2).values for part in seen], 1)
            found.append(torch.relu(best + torch.cat([f.get_parameter("bias") for f in self.heights])))
        return torch.cat(found, 1)


def slid(kernels: Tensor, places: int, step: int) -> Tensor:
    """Lay kernels out at all places, so that sliding them over rows of numbers is one product of matrices.

    Where windows are short that is quicker than a convolution: nothing is copied but the kernels.

    Args:
        kernels: `(n, w)`.
        places: How many there are.
        step: Numbers from one place to the next.

    Returns:
        `(n * places, w + (places - 1) * step)`: kernel by kernel, each at every place, zeros around it.

    >>> slid(torch.tensor([[1, 2]]), 3, 1)
    tensor([[1, 2, 0, 0],
            [0, 1, 2, 0],
            [0, 0, 1, 2]])
    """
    n, width = kernels.shape
    whole = width + (places - 1) * step
    longer = functional.pad(kernels, (0, whole + step - width))  # read in rows of `whole`, each begins a step later
    repeated = longer[:, None].expand(-1, places, -1).reshape(n, -1)
    return repeated[:, : places * whole].reshape(n * places, whole)


class WindowNetwork(Network):
    """Foretells the next `T` events from the `L` before them.

    Args:
        items: Vectors of the items, and of one special token: no event.
        length: `L`.
        targets: `T`.
        horizontal: Filters of each height.
        vertical: Filters that sum.
        user: Is there a vector of everybody?
        features: What is mixed into the vectors of the items that are read.
        rate: Dropout of what the filters found.
    """

    def __init__(
        self,
        items: ItemEmbedding,
        *,
        length: int = 5,
        targets: int = 3,
        horizontal: int = 16,
        vertical: int = 4,
        user: bool = False,
        features: SideFeatures | None = None,
        rate: float = 0.5,
    ) -> None:
        """Draw the weights: vectors from a normal distribution of deviation `1 / width`, biases of items 0."""
        super().__init__()
        self.items, self.features = items, features
        self.length, self.targets, self.rate = length, targets, rate
        self.filters = WindowFilters(length, items.dim, horizontal=horizontal, vertical=vertical)
        self.hidden = nn.Linear(self.filters.width, items.dim)
        self.user = nn.Parameter(torch.empty(items.dim)) if user else None
        width = 2 * items.dim if user else items.dim
        self.head = Head(items, tied=False, width=width, bias=True)
        for table in (items.weight, self.user):
            if table is not None:
                nn.init.normal_(table, std=1 / items.dim)
        assert self.head.output is not None
        nn.init.normal_(self.head.output.weight, std=1 / width)

    def forward(self, batch: Batch) -> Tensor:
        """Return the query of each row, `(B, width)`, from its newest `L` events."""
        return self._queries(batch.events, batch.events.offsets[1:])

    def examples(self, batch: Batch) -> Examples:
        """Return the query of each row without its newest events, which are the targets.

        There are `T` of them, or all but the first event of a row that has no more than `T`.
        """
        events = batch.events
        counts = (events.lengths - 1).clamp(0, self.targets)
        is_target = events.from_end < counts[events.rows]
        queries = self._queries(events, events.offsets[1:] - counts)
        users = torch.arange(len(events), device=counts.device)
        of_query = events.rows[is_target]
        return Examples(queries, events.values[is_target], of_query, users=users, weights=batch.weights)

    def _queries(self, events: Jagged, stops: Tensor) -> Tensor:
        """Ask for what follows the events up to `stops`, `(B,)`, of each row."""
        places = stops[:, None] + torch.arange(-self.length, 0, device=stops.device)
        none = torch.tensor([self.items.n_items], device=stops.device)
        vectors = self.items(events.values)
        if self.features is not None:
            vectors = self.features(events.values, vectors)
        vectors = torch.cat([vectors, self.items(none)])
        windows = vectors[torch.where(places < events.offsets[:-1, None], vectors.shape[0] - 1, places)]
        found = dropout(self.filters(windows), self.rate, self.training)
        states = torch.relu(self.hidden(found))
        if self.user is not None:
            states = torch.cat([states, self.user.expand(len(states), -1)], 1)
        return self.head.queries(states)


def window_slices(offsets: NDArray[np.int64], settings: CaserSettings) -> Slices:
    """Return what is read and what is to be foretold, together, of each window of the rows that begin at `offsets`.

    >>> window_slices(np.array([0, 5]), CaserSettings(max_length=2, targets=1)).starts
    array([0, 0, 1, 2])
    """
    size = settings.max_length + settings.targets
    found = slices(offsets, settings.windows, size).longer_than(1)
    if settings.beginnings:
        return found
    kept = (found.lengths == size) | (np.isin(found.starts, offsets) & np.isin(found.stops, offsets))
    return Slices(found.starts[kept], found.stops[kept])


class Caser(NeuralRecommender[CaserSettings]):
    """Convolutions over the vectors of the latest events, `(L, D)`, find what to expect next, up to skips.

    Horizontal filters of every height see some events in a row wherever they stand; vertical ones sum
    the window.  A layer of width `D` makes the query of what they found, and items have vectors of
    their own for the output, with a bias.  Where fewer than `L` events came before, a learned vector
    stands for none, to the left.

    The paper joins a vector of the *user* to the query.  Here visitors are strangers: the ids of users
    mean nothing, and whoever asks need not have been seen in training, so there is no such vector to
    look up.  With `user = "none"` it is left out (the paper calls that Caser-vh: on MovieLens its mean
    average precision falls from .151 to .145).  With `user = "default"` all share one learned vector;
    the widths are those of the paper, and it comes to one more bias for each item.

    Also as published: `T` targets and three negatives for each window, binary cross-entropy with the
    mean over both.  Negatives are drawn from all items but the targets of the window; the paper spares
    what the person took at other times, too.
    """

    name = "caser"
    reference = (
        "Tang & Wang, Personalized top-N sequential recommendation via convolutional sequence embedding, WSDM 2018"
    )

    def _network(self, facts: Facts) -> Network:
        settings = self.config
        return WindowNetwork(
            ItemEmbedding(facts.n_items, settings.dim, special=1),
            length=settings.max_length,
            targets=settings.targets,
            horizontal=settings.horizontal,
            vertical=settings.vertical,
            user=settings.user == "default",
            features=facts.side_features(settings.dim, settings.feature_dim),
            rate=settings.dropout,
        )

    def _rows(self, log: SessionLog) -> Rows:
        settings = self.config
        offsets = log.session_offsets if settings.reads == "session" else log.event_offsets
        found = window_slices(offsets, settings)
        return Rows(log, found, None, self._reading.kinds(log), self._augmentation())

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """As published, and with all windows, no user and the softmax over all items."""
        small = {"dim": 16, "max_length": 4, "targets": 1, "epochs": 30, "batch_size": 64, "learning_rate": 0.02}
        small |= {"dropout": 0.1}
        return [{**small, "preset": "caser_2018"}, {**small, "loss": {"kind": "softmax"}}]
