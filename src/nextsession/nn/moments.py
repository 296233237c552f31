"""Moments: what is known at the instant of a question beside what the vectors say.

```
score(item) = h . e[item] + b[item] + w(h) . drift(item, instant) + l(h) person . audience(item, instant)
            + (a[item] + r(h) . repeat(item, history) for items of the history)
```

`drift` is a small network over how often the item was wanted (and shown) in several windows before the
instant and how old it is; `repeat` one over how often and how long ago the person had it, and `a` says what is
had again at all.  Both give several numbers, and the query says how much it makes of each: how far a person follows
the news of the hour, or buys the same again, is learnt.  `person` and `audience` say what this person, and those
who wanted the item of late, had wanted before (`nextsession.audiences`).

Training puts questions as an evaluation does, those of one short while at once, so that what is
known of the items then is worked out once for all of them; and the softmax is over all items.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nextsession.habits import N_FEATURES as OF_HABITS
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.jagged import Batch
from nextsession.nn.known import Known
from nextsession.nn.networks import Examples, Head, Network
from nextsession.nn.ops.moment_cross_entropy import Raised, moment_cross_entropy, moment_scores
from nextsession.nn.ops.repeats import N_FEATURES

_LIKENESS = 8.0
"""What the likeness of a person and an audience, a few tenths at most, counts for at first."""


@dataclass(frozen=True, eq=False)
class AskedBatch(Batch):
    """Histories with the answers to their questions, and what was known when they were asked."""

    known: Known | None = None
    positives: Tensor | None = None  # (P,) item codes
    of_query: Tensor | None = None  # (P,) row of each, never falling
    shown: Tensor | None = None  # (I,) items shown in the asked session and ignored
    shown_of: Tensor | None = None  # (I,) row of each, never falling

    def to(self, device: torch.device) -> "AskedBatch":
        """Return the batch on another device."""
        if self.events.offsets.device == device:
            return self
        found = super().to(device)
        beside = (self.positives, self.of_query, self.shown, self.shown_of)
        return AskedBatch(
            found.events,
            found.sessions,
            found.labels,
            found.actions,
            found.weights,
            None if self.known is None else self.known.to(device),
            *(None if x is None else x.to(device, non_blocking=True) for x in beside),
        )


@dataclass(frozen=True, eq=False)
class MomentExamples(Examples):
    """Queries that are met with what is known at their moments too."""

    known: Known | None = None


class MomentNetwork(Network):
    """A network whose queries are met with what is known at the moment of asking.

    Args:
        network: Turns histories into queries.
        n_features: Numbers that are known of every item; 0: none.
        repeat: Is it known what each person had before?
        habits: And what everybody has again?
        width: Numbers that become of them, each with a weight that depends on the query.
        hidden: Width between.
        audience: Is it known who wanted what of late?
        cold: Share of the items that a step of training meets as if they were new.
    """

    def __init__(
        self,
        network: Network,
        n_features: int,
        *,
        repeat: bool,
        habits: bool = False,
        width: int,
        hidden: int,
        audience: bool = False,
        cold: float = 0.0,
    ) -> None:
        """Draw the maps; what a query makes of the numbers is at first the same for all."""
        super().__init__()
        self.network = network
        weight, _ = network.head.table()
        n_items, dim = weight.shape
        self.cold = cold
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.drift = _map(n_features, hidden, width) if n_features else None
        self.repeat = _map(N_FEATURES + habits * OF_HABITS, hidden, width) if repeat else None
        self.again = nn.Parameter(torch.zeros(n_items)) if repeat else None
        self.of_drift = _weights(dim, width) if n_features else None
        self.of_repeat = _weights(dim, width) if repeat else None
        self.of_audience = _weights(dim, 1) if audience else None

    @property
    def head(self) -> Head:  # type: ignore[override]
        """What the network scores items by."""
        return self.network.head

    def forward(self, batch: Batch) -> Tensor:
        """Return the query of each history, `(B, D)`; zeros for an empty one."""
        queries: Tensor = self.network(batch)
        return queries * (batch.events.lengths > 0).to(queries.dtype)[:, None]

    def examples(self, batch: Batch) -> MomentExamples:
        """Return the questions as they were asked."""
        assert isinstance(batch, AskedBatch)
        assert batch.positives is not None
        return MomentExamples(
            self(batch),
            batch.positives,
            of_query=batch.of_query,
            users=torch.arange(len(batch), device=batch.positives.device),
            shown=batch.shown,
            shown_of=batch.shown_of,
            weights=batch.weights,
            known=batch.known,
        )

    def beside(self, queries: Tensor, found: Known) -> tuple[Tensor | None, Tensor | None]:
        """Return what queries make of what is known of items, `(M, E)`, and that at each moment, `(G, V, E)`."""
        if self.drift is None or self.of_drift is None or found.items is None:
            return None, None
        left, right = self.of_drift(queries), self.drift(found.items)
        if self.of_audience is None or found.persons is None or found.audiences is None:
            return left, right
        like = _LIKENESS * self.of_audience(queries) * found.persons
        return torch.cat([left, like], dim=1), torch.cat([right, found.audiences], dim=2)

    def met(self) -> tuple[Tensor, Tensor]:
        """Return vectors and biases of the items as a step of training meets them: of some, those that new ones get."""
        (table, _), bias = self.head.table(), self.biases()
        if not self.cold:
            return table, bias
        new = torch.rand(len(bias), device=bias.device) < self.cold
        return (
            torch.where(new[:, None], table.detach().mean(0), table),
            torch.where(new, bias.detach().mean(), bias),
        )

    def biases(self) -> Tensor:
        """Return the bias of every item, `(V,)`."""
        own = self.head.table()[1]
        return self.bias if own is None else self.bias + own

    def raised(self, queries: Tensor, found: Known) -> Raised:
        """Return by how much the scores of what people had before are raised."""
        if self.repeat is None or self.of_repeat is None or self.again is None:
            return Raised(found.rows, found.had, queries.new_zeros(len(found.rows)))
        weights: Tensor = self.of_repeat(queries)[found.rows]
        numbers: Tensor = self.repeat(found.features)
        return Raised(found.rows, found.had, (weights * numbers).sum(1) + self.again[found.had])


def _map(features: int, hidden: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, width))


def _weights(dim: int, width: int) -> nn.Linear:
    found = nn.Linear(dim, width)
    nn.init.zeros_(found.weight)
    nn.init.ones_(found.bias)
    return found


def moment_loss(examples: MomentExamples, network: MomentNetwork, alpha: float, smoothing: float = 0.0) -> Tensor:
    """Return the mean over the wanted items of the softmax cross-entropy over all items, other wanted ones left out.

    With `alpha` the rank loss is added: each wanted item against what its session showed and was ignored.
    """
    found, of_query, queries = examples.known, examples.of_query, examples.queries
    assert found is not None
    assert of_query is not None
    left, right = network.beside(queries, found)
    raised = network.raised(queries, found)
    table, bias = network.met()
    total = moment_cross_entropy(
        queries, table, bias, left, right, found.runs, raised, examples.positives, of_query, label_smoothing=smoothing
    )
    if not alpha or examples.shown is None or examples.shown_of is None or not len(examples.shown):
        return total

    def scores(items: Tensor, rows: Tensor) -> Tensor:
        own = (queries[rows] * table[items]).sum(1) + bias[items] + _looked_up(raised, items, rows, len(table))
        if left is None or right is None:
            return own
        return own + (left[rows] * right[found.moment_of(rows), items]).sum(1)

    return total + alpha * rank_loss(
        scores(examples.positives, of_query), of_query, scores(examples.shown, examples.shown_of), examples.shown_of
    )


def rank_loss(wanted: Tensor, of_wanted: Tensor, ignored: Tensor, of_ignored: Tensor) -> Tensor:
    """Return the mean of `log(1 + sum over ignored of exp(ignored - wanted))` (SessionRec, eq. 9).

    Args:
        wanted: `(P,)` scores.
        of_wanted: `(P,)` query of each.
        ignored: `(I,)` scores of what was shown to the same query and ignored.
        of_ignored: `(I,)` query of each.

    Returns:
        A scalar; queries to which nothing was shown that was ignored do not count, 0 if there is no other.
    """
    n = int(torch.cat([of_wanted, of_ignored]).max()) + 1 if len(of_wanted) and len(of_ignored) else 0
    if not n:
        return wanted.new_zeros(())
    highest = ignored.detach().new_full((n,), float("-inf"))
    highest = highest.scatter_reduce(0, of_ignored, ignored.detach(), "amax")
    sums = ignored.new_zeros(n).index_add(0, of_ignored, (ignored - highest[of_ignored]).exp())
    counted = highest[of_wanted] > float("-inf")
    of_counted = of_wanted[counted]
    losses = functional.softplus(highest[of_counted] + sums[of_counted].log() - wanted[counted])
    return losses.sum() / max(len(losses), 1)


def _looked_up(raised: Raised, items: Tensor, rows: Tensor, n_items: int) -> Tensor:
    """Return by how much the scores of some pairs are raised, `(n,)`."""
    if not len(raised.rows):
        return raised.by.new_zeros(len(rows))
    keys, order = torch.sort(raised.rows * n_items + raised.items)
    wanted = rows * n_items + items
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == wanted, raised.by[order][place], 0.0)


def answered(network: MomentNetwork, queries: Tensor, found: Known, never: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the scores of all items for some questions, `(B, V)`.

    Args:
        network: Fitted.
        queries: `(B, D)`.
        found: What is known at their moments.
        never: `(V,)` items that nobody ever wanted: they come last.
    """
    with torch.inference_mode():
        left, right = network.beside(queries, found)
        table, _ = network.head.table()
        raised = network.raised(queries, found)
        scores: NDArray[np.float32] = moment_scores(
            queries, table, network.biases(), left, right, found.runs, raised
        ).numpy()
    scores[:, never] -= np.float32(1e6)
    return scores


def grown(network: MomentNetwork, n_items: int) -> MomentNetwork:
    """Return a copy of the network that knows items up to `n_items`; new ones have the mean vector and bias of all."""
    found = copy.deepcopy(network)
    for module in found.modules():
        if isinstance(module, ItemEmbedding):
            module.weight = _more_rows(module.weight, module.n_items, n_items)
            module.n_items = n_items
    found.bias = _more_rows(found.bias, len(found.bias), n_items)
    if found.again is not None:
        found.again = _more_rows(found.again, len(found.again), n_items)
    if found.head.bias is not None:
        found.head.bias = _more_rows(found.head.bias, len(found.head.bias), n_items)
    return found


def _more_rows(weight: nn.Parameter, old: int, new: int) -> nn.Parameter:
    """Put rows that are the mean of the first `old` behind those, before what special tokens have."""
    known = weight.detach()
    mean = known[:old].mean(0, keepdim=True)
    rows = torch.cat([known[:old], mean.expand(new - old, *mean.shape[1:]), known[old:]])
    return nn.Parameter(rows.contiguous(), requires_grad=weight.requires_grad)
