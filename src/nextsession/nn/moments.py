"""Moments: what is known at the instant of a question beside what the vectors say.

```
score(item) = h . e[item] + b[item] + (1, w(h)) . drift(item, instant) + (1, r(h)) . repeat(item, history)
```

`drift` is a small network over how often the item was wanted (and shown) in several windows before the
instant and how old it is; `repeat` one over how often and how long ago the person had it.  Both
give several numbers, and the query says how much it makes of each: how far a person follows
the news of the hour, or buys the same again, is learnt.

Training puts questions as an evaluation does, those of one short while at once, so that what is
known of the items then is worked out once for all of them; and the softmax is over all items.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nextsession.data.log import SessionLog
from nextsession.nn.jagged import Batch
from nextsession.nn.networks import Examples, Head, Network
from nextsession.nn.ops.cross_entropy import Raised, linear_cross_entropy
from nextsession.nn.ops.repeats import N_FEATURES, repeats
from nextsession.tallies import Tally

_HOUR = 3_600_000.0


@dataclass(frozen=True, eq=False)
class History:
    """All events by time, in which it can be looked up what was known at any instant."""

    wanted: Tally
    shown: Tally | None
    """What was shown, wanted or not; None: nothing is known of it."""

    @classmethod
    def of(cls, log: SessionLog) -> "History":
        """Keep the events of a log."""
        liked = log.labels == 1
        wanted = Tally.of(log.times[liked], log.items[liked], log.n_items)
        return cls(wanted, None if bool(np.all(liked)) else Tally.of(log.times, log.items, log.n_items))

    def joined(self, log: SessionLog) -> "History":
        """Return these events and those of a log whose vocabulary extends theirs."""
        liked = log.labels == 1
        return History(
            self.wanted.joined(log.times[liked], log.items[liked], log.n_items),
            None if self.shown is None else self.shown.joined(log.times, log.items, log.n_items),
        )

    def arrays(self) -> dict[str, NDArray[np.int64] | NDArray[np.int32]]:
        """Return the events as arrays by name."""
        found: dict[str, NDArray[np.int64] | NDArray[np.int32]] = {
            "history/times": self.wanted.times,
            "history/items": self.wanted.items,
        }
        if self.shown is not None:
            found |= {"history/shown_times": self.shown.times, "history/shown_items": self.shown.items}
        return found

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]], n_items: int) -> "History":
        """Take back what `arrays` gave."""
        wanted = Tally(arrays["history/times"], arrays["history/items"], n_items)
        if "history/shown_times" not in arrays:
            return cls(wanted, None)
        return cls(wanted, Tally(arrays["history/shown_times"], arrays["history/shown_items"], n_items))

    def n_features(self, windows: int) -> int:
        """Return how many numbers there are of each item."""
        return (windows + 1) * (1 if self.shown is None else 2) + 2 + windows

    def features(self, instant: int, windows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what was known of every item at an instant, `(V, F)`.

        The logarithms of 1 + the events in each window before it and in all, of what was wanted and (if
        known) of what was shown; 1 if the item had any; its age; and, the same for all items,
        the logarithms of how much was wanted in each window.
        """
        parts: list[NDArray[np.float32]] = []
        for tally in (self.wanted,) if self.shown is None else (self.wanted, self.shown):
            counts = np.concatenate([tally.between(instant, windows), tally.before(instant)[None]])
            parts.append(np.log1p(counts, dtype=np.float32))
        counts = self.wanted.between(instant, windows).sum(axis=1)
        age = np.maximum(instant - np.minimum(self.wanted.firsts, instant), 0) / _HOUR
        born = (age > 0).astype(np.float32)
        known = np.stack([born, np.log1p(age).astype(np.float32)])
        volume = np.repeat(np.log1p(counts, dtype=np.float32)[:, None] / 4, len(age), axis=1)
        return np.ascontiguousarray(np.concatenate([*parts, known, volume]).T / 3, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Known:
    """What is known at the instants of a batch of questions."""

    of_moment: list[tuple[int, int]]
    """First and end row of each run of questions that know the same of the items."""
    items: list[Tensor]
    """`(V, F)` what they know of them; nothing without drift."""
    rows: Tensor  # (K,) questions, never falling
    had: Tensor  # (K,) items of their histories, no pair twice
    features: Tensor  # (K, R) what is known of those


def known(
    histories: SessionLog,
    asked_at: NDArray[np.int64],
    history: History | None,
    windows: NDArray[np.int64],
    *,
    repeat: bool,
    resolution: int = 1,
) -> Known:
    """Look up what was known when these questions were asked.

    Args:
        histories: One row a question.
        asked_at: `(B,)` ms.
        history: Of everybody; None: nothing is known of it.
        windows: `(W,)` ms.
        repeat: Is it looked up what each had before?
        resolution: Milliseconds to which instants are rounded down before everybody's events are counted, so that
            questions of the same while share the counts.
    """
    runs: list[tuple[int, int]] = [(0, len(asked_at))]
    items: list[Tensor] = []
    if history is not None:
        at = asked_at // resolution * resolution
        edges = [0, *(np.flatnonzero(np.diff(at)) + 1).tolist(), len(at)]
        runs = [(a, z) for a, z in pairwise(edges) if z > a]
        items = [torch.from_numpy(history.features(int(at[a]), windows)) for a, _ in runs]
    if not repeat:
        nothing = torch.zeros(0, dtype=torch.int64)
        return Known(runs, items, nothing, nothing, torch.zeros(0, N_FEATURES))
    labels = np.ascontiguousarray(histories.labels)
    found = repeats(
        histories.items, labels, histories.times, histories.session_offsets, histories.user_offsets,
        asked_at, histories.n_items,
    )  # fmt: skip
    return Known(runs, items, *(torch.from_numpy(x) for x in found))


@dataclass(frozen=True, eq=False)
class AskedBatch(Batch):
    """Histories with the answers to their questions, and what was known when they were asked."""

    known: Known | None = None
    positives: Tensor | None = None  # (P,) item codes
    of_query: Tensor | None = None  # (P,) row of each, never falling
    shown: Tensor | None = None  # (I,) items shown in the asked session and ignored
    shown_of: Tensor | None = None  # (I,) row of each, never falling


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
        width: Numbers that become of them, each with a weight that depends on the query.
        hidden: Width between.
    """

    def __init__(self, network: Network, n_features: int, *, repeat: bool, width: int, hidden: int) -> None:
        """Draw the maps; what a query makes of the numbers is at first the same for all."""
        super().__init__()
        self.network = network
        weight, _ = network.head.table()
        n_items, dim = weight.shape
        self.width = width
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.drift = _map(n_features, hidden, width) if n_features else None
        self.repeat = _map(N_FEATURES, hidden, width) if repeat else None
        self.of_drift = _weights(dim, width) if n_features else None
        self.of_repeat = _weights(dim, width) if repeat else None

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

    def sides(self, queries: Tensor, items: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return queries and items with what is known at one moment beside them.

        Args:
            queries: `(M, D)`.
            items: `(V, F)`, or None.

        Returns:
            `(M, D + E)` and `(V, D + E)`.
        """
        table, own = self.head.table()
        bias = self.bias if own is None else self.bias + own
        left, right = [queries, queries.new_ones(len(queries), 1)], [table, bias[:, None]]
        if self.drift is not None and self.of_drift is not None and items is not None:
            left.append(self.of_drift(queries))
            right.append(self.drift(items))
        return torch.cat(left, dim=1), torch.cat(right, dim=1)

    def raises(self, queries: Tensor, found: Known) -> Tensor:
        """Return by how much the scores of what people had before are raised, `(K,)`."""
        if self.repeat is None or self.of_repeat is None:
            return queries.new_zeros(len(found.rows))
        weights: Tensor = self.of_repeat(queries)[found.rows]
        found_by: Tensor = self.repeat(found.features)
        return (weights * found_by).sum(1)


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
    found = examples.known
    assert found is not None
    assert examples.of_query is not None
    raised = network.raises(examples.queries, found)
    total = examples.queries.new_zeros(())
    ranking, counted = examples.queries.new_zeros(()), 0
    for place, (first, stop) in enumerate(found.of_moment):
        queries, table = network.sides(examples.queries[first:stop], found.items[place] if found.items else None)
        own = slice(*torch.searchsorted(examples.of_query, torch.tensor([first, stop])).tolist())
        pairs = slice(*torch.searchsorted(found.rows, torch.tensor([first, stop])).tolist())
        positives, of_query = examples.positives[own], examples.of_query[own] - first
        if not len(positives):
            continue
        above = Raised(found.rows[pairs] - first, found.had[pairs], raised[pairs])
        loss = linear_cross_entropy(
            queries, table, None, positives,
            of_query=of_query, label_smoothing=smoothing, raised=above if len(above.rows) else None,
        )  # fmt: skip
        total = total + loss * len(positives)
        if alpha and examples.shown is not None and examples.shown_of is not None:
            some = slice(*torch.searchsorted(examples.shown_of, torch.tensor([first, stop])).tolist())
            value, n = _rank_loss(
                queries, table, above, (positives, of_query), (examples.shown[some], examples.shown_of[some] - first)
            )
            ranking, counted = ranking + value, counted + n
    total = total / max(len(examples.positives), 1)
    return total + alpha * ranking / counted if counted else total


def _rank_loss(
    queries: Tensor, table: Tensor, above: Raised, wanted: tuple[Tensor, Tensor], ignored: tuple[Tensor, Tensor]
) -> tuple[Tensor, int]:
    """Return the sum over wanted items of `log(1 + sum exp(ignored - wanted))`, and how many had something ignored."""
    n_items = len(table)
    keys = above.rows * n_items + above.items

    def scores(items: Tensor, rows: Tensor) -> Tensor:
        found = (queries[rows] * table[items]).sum(1)
        if not len(keys):
            return found
        key = rows * n_items + items
        order = torch.argsort(keys)
        place = torch.searchsorted(keys[order], key).clamp(max=len(keys) - 1)
        hit = keys[order][place] == key
        return found + torch.where(hit, above.by[order][place], 0.0)

    (likes, of_likes), (others, of_others) = wanted, ignored
    if not len(others):
        return queries.new_zeros(()), 0
    positive, negative = scores(likes, of_likes), scores(others, of_others)
    highest = negative.detach().new_full((len(queries),), float("-inf"))
    highest = highest.scatter_reduce(0, of_others, negative.detach(), "amax")
    sums = negative.new_zeros(len(queries)).index_add(0, of_others, (negative - highest[of_others]).exp())
    has = highest[of_likes] > float("-inf")
    rivals = highest[of_likes][has] + sums[of_likes][has].log()
    return functional.softplus(rivals - positive[has]).sum(), int(has.sum())


def answered(network: MomentNetwork, queries: Tensor, found: Known, never: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the scores of all items for some questions, `(B, V)`.

    Args:
        network: Fitted.
        queries: `(B, D)`.
        found: What is known at their moments.
        never: `(V,)` items that nobody ever wanted: they come last.
    """
    n_items = len(network.bias)
    scores = np.empty((len(queries), n_items), np.float32)
    with torch.inference_mode():
        raised = network.raises(queries, found).numpy()
        for place, (first, stop) in enumerate(found.of_moment):
            left, right = network.sides(queries[first:stop], found.items[place] if found.items else None)
            scores[first:stop] = (left @ right.T).numpy()
    scores[found.rows.numpy(), found.had.numpy()] += raised
    scores[:, never] -= np.float32(1e6)
    return scores
