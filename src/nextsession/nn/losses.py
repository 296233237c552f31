"""Losses: how far the queries of a batch are from the items they should have found.

A loss is its settings: it is called with the examples of a step, the head that scores items, and
the statistics of the items, and returns the mean over the positives.  Positives of one query never
compete with each other unless asked to.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from nextsession.config import Settings
from nextsession.nn.collisions import queries_of_positives
from nextsession.nn.contrasts import contrast, mean_of, positive_scores, weights_of_queries
from nextsession.nn.negatives import ItemStatistics, Negatives, NegativeSampler, Uniform
from nextsession.nn.networks import Examples, Head
from nextsession.nn.ops.cross_entropy import Precision, linear_cross_entropy
from nextsession.nn.ops.row_contrasts import row_cross_entropy, row_rejections
from nextsession.nn.ops.sampled_cross_entropy import sampled_cross_entropy
from nextsession.nn.ranking_losses import BPR, TOP1, BPRMax, TOP1Max
from nextsession.nn.row_columns import row_columns
from nextsession.nn.shared_columns import Columns, columns_of

LogQ = Literal["none", "exact", "gru4rec", "improved"]


class FullSoftmax(Settings):
    """Cross-entropy of the softmax over all items."""

    kind: Literal["softmax"] = "softmax"
    """Which loss this is."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread evenly over all items."""
    other_positives: bool = False
    """Do the other positives of a query stand in the denominator?"""
    precision: Precision = "float32"
    """Numbers that the scores are multiplied in; the sum of exponentials is float32 always."""

    def __call__(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return the loss of a batch."""
        table, bias = head.table()
        return linear_cross_entropy(
            examples.queries,
            table,
            bias,
            examples.positives,
            of_query=examples.of_query,
            weights=examples.weights,
            label_smoothing=self.label_smoothing,
            other_targets=self.other_positives,
            precision=self.precision,
        )


class SampledSoftmax(Settings):
    """Cross-entropy of the softmax over the positive and sampled negatives.

    A query without negatives (all drawn were its own positives, or nothing was shown) does not count.
    """

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    """Which loss this is."""
    negatives: NegativeSampler = Uniform()
    """What the positive competes with."""
    logq: LogQ = "none"
    """Correction of scores for how often an item is drawn.

    `exact`: the log of the expected number is taken from all (Yi et al. 2019); `gru4rec`: the log of
    the raw counts that they are drawn by is; `improved`: from the negatives only, since the positive
    is there for certain.  The value of `improved` estimates the full softmax; its gradient is that of
    Khrylchenko et al. 2025.
    """
    precision: Precision = "float32"
    """Numbers that scores of negatives that all queries share are multiplied in."""

    def __call__(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return the loss of a batch."""
        negatives = self.negatives(examples, head, items)
        correction = self._of_negatives(negatives)
        if negatives.shared:
            return self._against_columns(examples, head, items, columns_of(negatives, correction, examples, items))
        if negatives.of_row is not None:
            return self._against_rows(examples, head, items, negatives, negatives.of_row)
        found = contrast(examples, head, negatives, items)
        scores = found.negatives
        if correction is not None:
            scores = scores - torch.where(found.barred, 0.0, correction)
        rivals = scores.masked_fill(found.barred, float("-inf")).logsumexp(1)
        positives = found.positives - self._of_positives(examples, items)
        losses = functional.softplus(found.spread(rivals) - positives)
        return mean_of(losses, examples, found.spread(found.n_negatives > 0))

    def _against_columns(self, examples: Examples, head: Head, items: ItemStatistics, columns: Columns) -> Tensor:
        vectors, bias = head.rows(columns.items)
        return sampled_cross_entropy(
            examples.queries,
            vectors,
            columns.shift if bias is None else columns.shift + bias.float(),
            columns.barred,
            positive_scores(examples, head) - self._of_positives(examples, items),
            queries_of_positives(examples),
            weights_of_queries(examples),
            precision=self.precision,
        )

    def _against_rows(
        self, examples: Examples, head: Head, items: ItemStatistics, negatives: Negatives, of_row: Tensor
    ) -> Tensor:
        correction = self._of_negatives(negatives)
        columns, table, bias = row_columns(negatives, of_row, correction, examples, head, items.n_items)
        return row_cross_entropy(
            examples.queries,
            table,
            bias,
            columns,
            positive_scores(examples, head) - self._of_positives(examples, items),
            queries_of_positives(examples),
            weights_of_queries(examples),
        )

    def _of_negatives(self, negatives: Negatives) -> Tensor | None:
        """Return what is taken from the scores of negatives."""
        if self.logq == "none":
            return None
        return negatives.log_support if self.logq == "gru4rec" else negatives.log_q

    def _of_positives(self, examples: Examples, items: ItemStatistics) -> Tensor | float:
        """Return what is taken from the scores of positives."""
        if self.logq == "gru4rec":
            return items.log_counts[examples.positives]
        if self.logq == "exact":
            expected = self.negatives.log_q(examples.positives, examples, items)
            return torch.where(expected.isneginf(), 0.0, expected)  # never drawn: as if drawn once
        return 0.0


class BCE(Settings):
    """Binary cross-entropy of the positive and its negatives (Kang and McAuley 2018)."""

    kind: Literal["bce"] = "bce"
    """Which loss this is."""
    negatives: NegativeSampler = Uniform(n=1)
    """What the positive competes with."""
    average: bool = False
    """Do the negatives of a query together count as much as one positive (Tang and Wang 2018)?  Otherwise each does."""

    def __call__(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return the loss of a batch."""
        negatives = self.negatives(examples, head, items)
        rejected, accepted = _binary(examples, head, items, negatives, self.average)
        return rejected + accepted


class GBCE(Settings):
    """Binary cross-entropy without the overconfidence of few negatives (Petrov and Macdonald 2023)."""

    kind: Literal["gbce"] = "gbce"
    """Which loss this is."""
    negatives: Uniform = Uniform(n=256, mask=False)
    """What the positive competes with."""
    t: float = Field(default=0.75, ge=0, le=1)
    """Calibration; 0: that of binary cross-entropy, 1: that of the full softmax."""

    def __call__(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return the loss of a batch."""
        rejected, accepted = _binary(examples, head, items, self.negatives(examples, head, items))
        n_items = items.n_items if self.negatives.all_items else len(items.known)
        return (rejected + gbce_weight(self.negatives.n, n_items, self.t) * accepted) / (self.negatives.n + 1)


def gbce_weight(n: int, n_items: int, t: float) -> float:
    """Return the weight of the positive in gBCE, `1 - t (1 - n / (n_items - 1))`.

    >>> round(gbce_weight(256, 3416, 0.75), 7)
    0.3062225
    """
    return 1 - t * (1 - min(n / max(n_items - 1, 1), 1.0))


def _binary(
    examples: Examples, head: Head, items: ItemStatistics, negatives: Negatives, average: bool = False
) -> tuple[Tensor, Tensor]:
    """Return two means over the positives.

    The first is of `-log(1 - sigmoid(score))`, summed over the negatives, or averaged; the second of
    `-log sigmoid(score)` of the positives themselves.
    """
    if negatives.of_row is not None:
        columns, table, bias = row_columns(negatives, negatives.of_row, None, examples, head, items.n_items)
        weights, of_query = weights_of_queries(examples).float(), queries_of_positives(examples)
        weights = weights * torch.bincount(of_query, minlength=len(weights))
        weights = weights / weights.sum().clamp(min=torch.finfo(torch.float32).tiny)
        rejected = row_rejections(examples.queries, table, bias, columns, weights, average=average)
        return rejected, -mean_of(functional.logsigmoid(positive_scores(examples, head)), examples)
    found = contrast(examples, head, negatives, items)
    rejections = functional.softplus(found.negatives).masked_fill(found.barred, 0.0).sum(1)
    if average:
        rejections = rejections / found.n_negatives.clamp(min=1)
    accepted = -functional.logsigmoid(found.positives)
    return mean_of(found.spread(rejections), examples), mean_of(accepted, examples)


_Single = Annotated[
    FullSoftmax | SampledSoftmax | BCE | GBCE | BPR | BPRMax | TOP1 | TOP1Max, Field(discriminator="kind")
]


class Part(Settings):
    """A loss in a sum."""

    loss: _Single
    """The loss."""
    weight: float = Field(default=1.0, ge=0)
    """What it is multiplied by; one of weight 0 is not computed."""


class Sum(Settings):
    """Several losses of the same queries, such as retrieval and, weighted less, ranking among what was shown."""

    kind: Literal["sum"] = "sum"
    """Which loss this is."""
    parts: tuple[Part, ...] = Field(min_length=1)
    """What is added up."""

    def __call__(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return the loss of a batch."""
        total = examples.queries.new_zeros((), dtype=torch.float32)
        for part in self.parts:
            if part.weight:
                value = part.loss(examples, head, items)
                total = total + (value if part.weight == 1 else part.weight * value)
        return total


Loss = Annotated[
    FullSoftmax | SampledSoftmax | BCE | GBCE | BPR | BPRMax | TOP1 | TOP1Max | Sum, Field(discriminator="kind")
]
"""Any loss, told by its `kind`."""
