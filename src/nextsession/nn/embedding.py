"""ItemEmbedding: one vector for every item, and for the special tokens of a network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ItemEmbedding(nn.Module):
    """One vector per item, `(V, D)`; codes from `V` on are special tokens of the network (a mask, a pad).

    Args:
        n_items: `V`.
        dim: `D`.
        special: Number of special tokens, codes `V .. V + special - 1`.
        std: Standard deviation of the normal distribution the vectors are drawn from.
        sparse: Are gradients to hold the rows of a batch only?  For catalogues whose table is large
            beside a batch; needs an optimiser that takes sparse gradients, and a loss that samples.
    """

    def __init__(self, n_items: int, dim: int, *, special: int = 0, std: float = 0.02, sparse: bool = False) -> None:
        """Draw the vectors."""
        super().__init__()
        self.n_items, self.dim, self.sparse = n_items, dim, sparse
        self.weight = nn.Parameter(torch.empty(n_items + special, dim))
        nn.init.normal_(self.weight, std=std)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes, `(...)` to `(..., D)`."""
        return F.embedding(codes, self.weight, sparse=self.sparse)

    def table(self) -> Tensor:
        """Return the vectors of all items, `(V, D)`, without those of special tokens."""
        return self.weight[: self.n_items] if len(self.weight) > self.n_items else self.weight
