"""Negatives: the items that a positive has to beat in a step of training, and how likely each was drawn.

Items without an event of training are not drawn unless asked for: pushed down at every step and
never up, they would be lost for good.  Draws use the default generator of the device of the
statistics, and nothing is sent to the host but, where rows have draws of their own, the number of rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from nextsession.config import Settings
from nextsession.nn.collisions import Mask, collides, queries_of_positives
from nextsession.nn.networks import Examples, Head
from nextsession.nn.ops.distinct import distinct_items


@dataclass(frozen=True, eq=False)
class ItemStatistics:
    """What sampling needs to know about the items: `counts` `(V,)`, the events of training of each."""

    counts: Tensor

    @property
    def n_items(self) -> int:
        """Return the number of items, V."""
        return len(self.counts)

    @cached_property
    def known(self) -> Tensor:
        """Return the codes of the items with events, rising."""
        return torch.nonzero(self.counts > 0).squeeze(1)

    @cached_property
    def total(self) -> Tensor:
        """Return the number of events."""
        return self.counts.sum(dtype=torch.float64)

    @cached_property
    def log_counts(self) -> Tensor:
        """Return the logarithm of the counts, `(V,)` float32; items without events count as 1."""
        return self.counts.float().clamp(min=1).log()

    @cached_property
    def _distributions(self) -> dict[tuple[float, bool], tuple[Tensor, Tensor]]:
        return {}

    def popularity(self, alpha: float, all_items: bool) -> tuple[Tensor, Tensor]:
        """Return the cumulative probabilities of items drawn as often as `counts^alpha` says, and their log.

        Args:
            alpha: 0: all alike; 1: as in training.
            all_items: Can items without events be drawn?  They count as 1 then.

        Returns:
            `(V,)` float64 that end with 1, and `(V,)` float32, -inf where an item is never drawn.
        """
        if (alpha, all_items) not in self._distributions:
            weights = self.counts.double().clamp(min=1).pow(alpha)
            if not all_items:
                weights = torch.where(self.counts > 0, weights, 0.0)
            cumulative = weights.cumsum(0)
            logs = (weights / cumulative[-1]).log().float()
            self._distributions[alpha, all_items] = cumulative / cumulative[-1].clone(), logs
        return self._distributions[alpha, all_items]


@dataclass(frozen=True, eq=False)
class Negatives:
    """Items to beat; -1 is no item.

    The same for all queries, `(C,)`; for each its own, `(M, C)`; or the same for the queries of a row, `(G, C)`
    with `of_row`.
    """

    items: Tensor
    mask: Mask
    own: Tensor | None  # (C,) query whose positive the column is, -1: nobody's; None: nobody's at all
    expected: Callable[[], Tensor]  # what `log_q` and `log_support` are, which not every loss asks for
    support: Callable[[], Tensor]
    of_row: Tensor | None = None  # (M,) which of `items` each query has, never falling; None: see `items`

    @cached_property
    def log_q(self) -> Tensor:
        """Return the log of the number of times each was expected among the items of one query, shaped as `items`."""
        return self.expected()

    @cached_property
    def log_support(self) -> Tensor:
        """Return what GRU4Rec takes from the score of each, shaped as `items`."""
        return self.support()

    @property
    def shared(self) -> bool:
        """Are they the same for all queries?"""
        return self.items.dim() == 1

    def for_each(self) -> "Negatives":
        """Return those of rows as `(M, C)`, written out for each query; others as they are."""
        rows = self.of_row
        if rows is None:
            return self
        return Negatives(
            self.items[rows], self.mask, self.own, lambda: self.log_q[rows], lambda: self.log_support[rows]
        )


class _Sampler(Settings, ABC):
    """Base of samplers: draws, and says how often each item was to be expected."""

    mask: bool = True
    """Does a query not compete with its own positives where they are drawn?  GRU4Rec and gSASRec let it."""

    @property
    def _mask(self) -> Mask:
        return "positives" if self.mask else "none"

    def __call__(self, examples: Examples, head: Head, items: ItemStatistics) -> Negatives:
        """Draw negatives for a batch."""
        drawn = self.draw(examples, head, items)
        return Negatives(
            drawn,
            self._mask,
            self.owners(examples, drawn),
            lambda: self.log_q(drawn, examples, items),
            lambda: self.log_support(drawn, examples, items),
            self.rows(examples),
        )

    @abstractmethod
    def draw(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return codes: `(C,)`, `(M, C)`, or `(G, C)` if there are `rows`."""

    def rows(self, examples: Examples) -> Tensor | None:
        """Return which row of what is drawn each query has, `(M,)`; None: its own, or they share all."""
        return None

    @abstractmethod
    def log_q(self, codes: Tensor, examples: Examples, items: ItemStatistics) -> Tensor:
        """Return the log of the number of times each of `codes` is expected among the items of one query."""

    def log_support(self, codes: Tensor, examples: Examples, items: ItemStatistics) -> Tensor:
        """Return what GRU4Rec takes from the scores of drawn items: log of what they are drawn by, not normalised."""
        return torch.zeros_like(codes, dtype=torch.float32)

    def owners(self, examples: Examples, drawn: Tensor) -> Tensor | None:
        """Return the query that each drawn item is a positive of by construction, -1: none."""
        return None


class Uniform(_Sampler):
    """Items drawn all alike (Kang and McAuley 2018; Petrov and Macdonald 2023)."""

    kind: Literal["uniform"] = "uniform"
    """Which sampler this is."""
    n: int = Field(default=256, ge=1)
    """Items drawn."""
    per: Literal["query", "row", "batch"] = "query"
    """Who gets a draw of their own: each query, each row of the batch, or the batch as a whole."""
    all_items: bool = False
    """Are items without events of training drawn too?"""
    distinct: bool = False
    """Is no item drawn twice?  Then there may be fewer than `n`."""
    unseen: bool = False
    """With `distinct` and `per = "row"`: are the positives of a row not drawn for any of its queries?"""

    @model_validator(mode="after")
    def _rows_have_seen(self) -> "Uniform":
        if self.unseen and not (self.distinct and self.per == "row"):
            raise ValueError('unseen = true needs distinct = true and per = "row"')
        return self

    def draw(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return `(n,)` for the batch, `(G, n)` for rows, `(M, n)` otherwise."""
        rows, count = self.rows(examples), 1 if self.per == "batch" else len(examples.queries)
        if rows is not None and count:
            count = int(rows[-1]) + 1
        if self.distinct:
            drawn = self._distinct(count, rows, examples, items)
        else:
            drawn = torch.randint(self._among(items), (count, self.n), device=items.counts.device)
            drawn = drawn if self._among(items) == items.n_items else items.known[drawn]
        return drawn[0] if self.per == "batch" else drawn

    def rows(self, examples: Examples) -> Tensor | None:
        """Return the row of the batch that each query comes from, if rows have draws."""
        return examples.users if self.per == "row" else None

    def _distinct(self, count: int, rows: Tensor | None, examples: Examples, items: ItemStatistics) -> Tensor:
        """Draw without replacement, `(count, n)`."""
        pool = torch.arange(items.n_items, device=items.counts.device) if self.all_items else items.known
        spared = of_rows = examples.positives[:0]
        if self.unseen and rows is not None:
            spared, of_rows = examples.positives, rows[queries_of_positives(examples)]
        return distinct_items(pool, self.n, items.n_items, count, spared, of_rows)

    def log_q(self, codes: Tensor, examples: Examples, items: ItemStatistics) -> Tensor:
        """Return `log(n / number of items)`, whatever a row has seen; -inf for items that are never drawn."""
        rate = self.n / max(self._among(items), 1)
        logs = torch.full(codes.shape, log(min(rate, 1.0) if self.distinct else rate), device=codes.device)
        return logs if self.all_items else logs.masked_fill_(items.counts[codes] <= 0, float("-inf"))

    def _among(self, items: ItemStatistics) -> int:
        """Return how many items are drawn from."""
        return items.n_items if self.all_items else len(items.known)


class Popularity(_Sampler):
    """Items drawn for the whole batch in proportion to `counts^alpha` (Hidasi and Karatzoglou 2018)."""

    kind: Literal["popularity"] = "popularity"
    """Which sampler this is."""
    n: int = Field(default=2048, ge=1)
    """Items drawn, with replacement."""
    alpha: float = Field(default=0.75, ge=0, le=1)
    """0: all items alike; 1: as often as in training."""
    all_items: bool = False
    """Are items without events of training drawn too?"""

    def draw(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return `(n,)`."""
        cumulative, _ = items.popularity(self.alpha, self.all_items)
        places = torch.rand(self.n, dtype=torch.float64, device=cumulative.device)
        return torch.searchsorted(cumulative, places, right=True)  # `right`: an item of no weight is never found

    def log_q(self, codes: Tensor, examples: Examples, items: ItemStatistics) -> Tensor:
        """Return `log(n p(item))`."""
        logs = items.popularity(self.alpha, self.all_items)[1]
        return logs[codes] + log(self.n)

    def log_support(self, codes: Tensor, examples: Examples, items: ItemStatistics) -> Tensor:
        """Return `alpha log(count)`."""
        return self.alpha * items.log_counts[codes]


class InBatch(_Sampler):
    """The positives of the whole batch: popular items often, so correct the scores (`logq`) or they are lost."""

    kind: Literal["in_batch"] = "in_batch"
    """Which sampler this is."""
    mask_same_user: bool = True
    """Does a query not compete with what the same user took elsewhere in the batch?"""

    @property
    def _mask(self) -> Mask:
        return "user" if self.mask_same_user else super()._mask

    def draw(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return the positives, `(P,)`."""
        return examples.positives

    def log_q(self, codes: Tensor, examples: Examples, items: ItemStatistics) -> Tensor:
        """Return `log(P count / total)`."""
        return items.log_counts[codes] - (items.total / len(examples)).log().float()

    def log_support(self, codes: Tensor, examples: Examples, items: ItemStatistics) -> Tensor:
        """Return `log(count)`."""
        return items.log_counts[codes]

    def owners(self, examples: Examples, drawn: Tensor) -> Tensor | None:
        """Return the query of each positive."""
        return queries_of_positives(examples)


class Shown(_Sampler):
    """What each query's answer showed and the person ignored (`Examples.shown`); queries without have no negatives."""

    kind: Literal["shown"] = "shown"
    """Which sampler this is."""

    def draw(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return `(M, C)`, -1 after those of a query.

        Raises:
            ValueError: The examples have no shown items.
        """
        if examples.shown is None or examples.shown_of is None:
            raise ValueError("these examples do not say what was shown")
        queries = len(examples.queries)
        counts = torch.bincount(examples.shown_of, minlength=queries)
        width = max(int(counts.max()), 1) if queries else 1
        order = torch.argsort(examples.shown_of, stable=True)
        rows = examples.shown_of[order]
        places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        drawn = torch.full((queries, width), -1, dtype=torch.int64, device=rows.device)
        drawn[rows, places] = examples.shown[order]
        return drawn

    def log_q(self, codes: Tensor, examples: Examples, items: ItemStatistics) -> Tensor:
        """Return 0: what was shown was not drawn."""
        return torch.zeros_like(codes, dtype=torch.float32)


class Mixed(_Sampler):
    """Several samples at once, such as in-batch and uniform ones, corrected as the mixture they are."""

    kind: Literal["mixed"] = "mixed"
    """Which sampler this is."""
    parts: tuple[
        Annotated[Uniform | Popularity | InBatch | Shown, Field(discriminator="kind")],
        ...,
    ] = Field(min_length=1)
    """The samplers; their own `mask` is not read."""
    mask_same_user: bool = False
    """Does a query not compete with what the same user took elsewhere in the batch?"""

    @property
    def _mask(self) -> Mask:
        return "user" if self.mask_same_user else super()._mask

    def draw(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return the parts' items side by side: `(C,)` if all share theirs, else `(M, C)`."""
        return self._joined(self._draws(examples, head, items), len(examples.queries))

    def _draws(self, examples: Examples, head: Head, items: ItemStatistics) -> list[Tensor]:
        """Return what each part draws, `(C,)` or `(M, C)`."""
        drawn = [(part.draw(examples, head, items), part.rows(examples)) for part in self.parts]
        return [codes if rows is None else codes[rows] for codes, rows in drawn]

    def log_q(self, codes: Tensor, examples: Examples, items: ItemStatistics) -> Tensor:
        """Return the log of the sum of what the parts expect; 0, once, for what was shown and is never drawn."""
        expected = [part.log_q(codes, examples, items) for part in self.parts if part.kind != "shown"]
        if not expected:
            return torch.zeros_like(codes, dtype=torch.float32)
        found = torch.stack(expected).logsumexp(0)
        return torch.where(found.isneginf(), 0.0, found)

    def __call__(self, examples: Examples, head: Head, items: ItemStatistics) -> Negatives:
        """Draw every part for a batch."""
        queries = len(examples.queries)
        drawn = self._draws(examples, head, items)
        owners = [
            part.owners(examples, codes) if part.kind == "in_batch" else codes.new_full(codes.shape[-1:], -1)
            for part, codes in zip(self.parts, drawn, strict=True)
        ]
        joined = self._joined(drawn, queries)

        def support() -> Tensor:
            pairs = zip(self.parts, drawn, strict=True)
            return self._joined([part.log_support(codes, examples, items) for part, codes in pairs], queries)

        return Negatives(
            joined,
            self._mask,
            torch.cat([owner for owner in owners if owner is not None]),
            lambda: self.log_q(joined, examples, items),
            support,
        )

    @staticmethod
    def _joined(parts: list[Tensor], queries: int) -> Tensor:
        if any(part.dim() == 2 for part in parts):
            parts = [part if part.dim() == 2 else part.expand(queries, -1) for part in parts]
        return torch.cat(parts, dim=-1)


class Hard(_Sampler):
    """The items of a shared pool that each query scores highest (TRON: Wilm et al. 2023)."""

    kind: Literal["hard"] = "hard"
    """Which sampler this is."""
    pool: Annotated[Uniform | Popularity | InBatch | Mixed, Field(discriminator="kind")] = Uniform(n=16384, per="batch")
    """What they are taken from: items that all queries share; its own `mask` is not read."""
    top: int = Field(default=100, ge=1)
    """Items taken for each query."""

    def draw(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return `(M, top)`; -1 where the pool had no more.

        Raises:
            ValueError: The pool is not shared.
        """
        pool = self.pool.draw(examples, head, items)
        if pool.dim() != 1:
            raise ValueError("the pool of hard negatives must be shared by the batch")
        pool = torch.unique(pool)
        with torch.no_grad():
            vectors, bias = head.rows(pool)
            found = []
            for start in range(0, len(examples.queries), 512):
                rows = slice(start, start + 512)
                scores = (examples.queries[rows] @ vectors.T).float()
                if bias is not None:
                    scores += bias
                codes = pool.expand(len(scores), -1)
                barred = collides(codes, examples, self._mask, items.n_items, rows)
                scores, places = scores.masked_fill_(barred, float("-inf")).topk(min(self.top, len(pool)), dim=1)
                found.append(torch.where(scores.isneginf(), -1, pool[places]))
        return torch.cat(found) if found else pool.new_empty((0, min(self.top, len(pool))))

    def log_q(self, codes: Tensor, examples: Examples, items: ItemStatistics) -> Tensor:
        """Return what the pool expects; which of its items are hard is not corrected for."""
        return self.pool.log_q(codes, examples, items)


NegativeSampler = Annotated[Uniform | Popularity | InBatch | Mixed | Hard | Shown, Field(discriminator="kind")]
"""Any sampler, told by its `kind`."""
