"""STAMP: attention by the last event and the mean of all, without recurrence."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nextsession.answering import Facts
from nextsession.neural import NeuralRecommender, NeuralSettings
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.jagged import Jagged
from nextsession.nn.networks import CausalEncoder, Head, Input, Network, NextItem
from nextsession.nn.ops.additive_attention import additive_attention


class STAMPSettings(NeuralSettings):
    """Settings of `STAMP`."""

    reads: Literal["session", "history"] = "session"
    """What is one row: each session by itself, or all that a person did."""
    max_length: int = Field(default=50, ge=1)
    """Newest events of a row that are read."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the numbers of the items that are read set to 0 while training; the paper has none."""


class ShortTermAttention(CausalEncoder):
    """`tanh(Ws (m + sum_i a_i x_i)) * tanh(Wt x_t)` after every event `t`, `m` being the mean of those up to it.

    `a_i = w . sigmoid(W1 x_i + W2 x_t + W3 m + b)`.
    """

    def __init__(self, dim: int) -> None:
        """Draw all maps from a normal distribution of standard deviation .05; biases begin at 0."""
        super().__init__()
        self.of_each, self.of_last = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.of_mean = nn.Linear(dim, dim)
        self.weight = nn.Parameter(torch.empty(dim))
        self.whole, self.current = nn.Linear(dim, dim), nn.Linear(dim, dim)
        for name, weight in self.named_parameters():
            nn.init.zeros_(weight) if name.endswith("bias") else nn.init.normal_(weight, std=0.05)

    def forward(self, rows: Jagged) -> Tensor:
        """Map vectors `(N, D)` to an answer after each, `(N, D)`."""
        x = rows.values
        sums = torch.cat([x.new_zeros((1, x.shape[1]), dtype=torch.float64), x.double().cumsum(0)])
        starts = rows.offsets[:-1][rows.rows]
        means = (sums[1:] - sums[starts]) / (rows.positions + 1)[:, None]
        places = torch.arange(len(x), device=starts.device)
        return self._answers(x, means.to(x.dtype), starts, places)

    def last(self, rows: Jagged) -> Tensor:
        """Return the answer after the last value of each row, `(B, D)`."""
        if rows.values.shape[0] == 0:
            return super().last(rows)
        return self._answers(rows.values, rows.mean(), rows.offsets[:-1], (rows.offsets[1:] - 1).clamp(min=0))

    def _answers(self, x: Tensor, means: Tensor, starts: Tensor, at: Tensor) -> Tensor:
        now = x[at]
        asked = self.of_last(now) + self.of_mean(means)
        about = means + additive_attention(asked, self.of_each(x), x, self.weight, starts, at + 1)
        return torch.tanh(self.whole(about)) * torch.tanh(self.current(now))


class STAMP(NeuralRecommender[STAMPSettings]):
    """What a session was about (attention, and the mean) times what came last; both through one layer.

    Weights of attention are no softmax.  All beginnings of a session are learnt from in one pass.  Scores
    are those dot products: the sigmoid that the paper puts around them would flatten the softmax.
    """

    name = "stamp"
    reference = "Liu et al., STAMP: Short-term attention/memory priority model, KDD 2018"

    def _network(self, facts: Facts) -> Network:
        items = ItemEmbedding(facts.n_items, self.config.dim, std=0.002)
        inputs = Input(items, rate=self.config.dropout)
        return NextItem(inputs, ShortTermAttention(self.config.dim), Head(items))

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """A small one."""
        return [{"dim": 16, "epochs": 30, "batch_size": 8, "learning_rate": 0.01}]
