"""The losses of GRU4Rec that compare a positive with each of its negatives (Hidasi and Karatzoglou 2018)."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from nextsession.config import Settings
from nextsession.nn.contrasts import contrast, mean_of
from nextsession.nn.negatives import InBatch, ItemStatistics, Mixed, NegativeSampler, Popularity
from nextsession.nn.networks import Examples, Head

_GRU4REC = Mixed(parts=(InBatch(mask_same_user=False), Popularity()), mask=False)


class _Pairwise(Settings, ABC):
    """Base of losses over the pairs of a positive and a negative."""

    negatives: NegativeSampler = _GRU4REC
    """What the positive competes with; by default the rest of the batch and 2048 popular items, as in GRU4Rec."""

    def __call__(self, examples: Examples, head: Head, items: ItemStatistics) -> Tensor:
        """Return the loss of a batch: the mean over positives that have negatives."""
        found = contrast(examples, head, self.negatives(examples, head, items), items)
        barred = found.spread(found.barred)
        losses = self._of_pairs(found.positives[:, None], found.spread(found.negatives), barred)
        return mean_of(losses, examples, found.spread(found.n_negatives > 0))

    @abstractmethod
    def _of_pairs(self, positives: Tensor, negatives: Tensor, barred: Tensor) -> Tensor:
        """Return the loss of each positive, `(P, 1)` against `(P, C)`; finite even if all are barred."""


class BPR(_Pairwise):
    """Mean over the negatives of `-log sigmoid(positive - negative)` (Rendle et al. 2009)."""

    kind: Literal["bpr"] = "bpr"
    """Which loss this is."""

    def _of_pairs(self, positives: Tensor, negatives: Tensor, barred: Tensor) -> Tensor:
        losses = functional.softplus(negatives - positives).masked_fill(barred, 0.0).sum(1)
        return losses / (~barred).sum(1).clamp(min=1)


class TOP1(_Pairwise):
    """Mean of `sigmoid(negative - positive) + sigmoid(negative^2)`, over all columns as GRU4Rec has it.

    The positive is one of the columns there, and compared with itself: it adds 1/2, and 1 to the number.
    """

    kind: Literal["top1"] = "top1"
    """Which loss this is."""

    def _of_pairs(self, positives: Tensor, negatives: Tensor, barred: Tensor) -> Tensor:
        losses = torch.sigmoid(negatives - positives) + torch.sigmoid(negatives.square())
        return (losses.masked_fill(barred, 0.0).sum(1) + 0.5) / ((~barred).sum(1) + 1)


class TOP1Max(_Pairwise):
    """`TOP1` with negatives weighted by their softmax."""

    kind: Literal["top1_max"] = "top1_max"
    """Which loss this is."""

    def _of_pairs(self, positives: Tensor, negatives: Tensor, barred: Tensor) -> Tensor:
        losses = torch.sigmoid(negatives - positives) + torch.sigmoid(negatives.square())
        return (_log_shares(negatives, barred).exp() * losses).masked_fill(barred, 0.0).sum(1)


class BPRMax(_Pairwise):
    """`-log` of the softmax-weighted `sigmoid(positive - negative)`, plus the weighted squares of the negatives."""

    kind: Literal["bpr_max"] = "bpr_max"
    """Which loss this is."""
    bpreg: float = Field(default=1.0, ge=0)
    """Weight of the squared scores of negatives."""
    elu: float = Field(default=0.0, ge=0)
    """Scores below 0 end at minus this (the ELU function); 0: scores are left as they are."""

    def _of_pairs(self, positives: Tensor, negatives: Tensor, barred: Tensor) -> Tensor:
        if self.elu:
            positives, negatives = functional.elu(positives, self.elu), functional.elu(negatives, self.elu)
        shares = _log_shares(negatives, barred)
        losses = -(shares + functional.logsigmoid(positives - negatives)).logsumexp(1)
        return losses + self.bpreg * (shares.exp() * negatives.square()).masked_fill(barred, 0.0).sum(1)


def _log_shares(negatives: Tensor, barred: Tensor) -> Tensor:
    """Return the log of the softmax over the negatives of each row; over all columns if all are barred."""
    barred = barred & ~barred.all(1, keepdim=True)
    return functional.log_softmax(negatives.masked_fill(barred, float("-inf")), dim=1)
