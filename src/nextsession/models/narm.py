"""NARM: a recurrent network reads a session, and attention asks what it was about."""

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
from nextsession.nn.ops.dropout import dropout
from nextsession.nn.recurrent import GRU


class NARMSettings(NeuralSettings):
    """Settings of `NARM`."""

    reads: Literal["session", "history"] = "session"
    """What is one row: each session by itself, or all that a person did."""
    max_length: int = Field(default=50, ge=1)
    """Newest events of a row that are read."""
    width: int = Field(default=128, ge=1)
    """Width of the recurrent states."""
    layers: int = Field(default=1, ge=1)
    """Recurrent units on top of each other."""
    dropout: float = Field(default=0.25, ge=0, lt=1)
    """Share of the numbers of the items that are read set to 0 while training."""
    state_dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of the numbers of the state and of what it pays attention to set to 0 while training."""


class AttentiveGRU(CausalEncoder):
    """`B [sum_t (v . sigmoid(A1 h_t + A2 h_n)) h_t ; h_n]` of the states `h` of a recurrent unit, at every `n`."""

    def __init__(self, dim: int, width: int, layers: int, rate: float) -> None:
        """Draw the maps, all without biases."""
        super().__init__()
        self.unit, self.rate = GRU(dim, layers, width=width, bias=False), rate
        self.of_each, self.of_last = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.weight = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))
        self.joined = nn.Linear(2 * width, dim, bias=False)

    def forward(self, rows: Jagged) -> Tensor:
        """Map vectors `(N, D)` to an answer after each, `(N, D)`."""
        places = torch.arange(len(rows.values), device=rows.offsets.device)
        return self._answers(self.unit(rows), rows.offsets[:-1][rows.rows], places)

    def last(self, rows: Jagged) -> Tensor:
        """Return the answer after the last value of each row, `(B, D)`."""
        if rows.values.shape[0] == 0:
            return super().last(rows)
        return self._answers(self.unit(rows), rows.offsets[:-1], (rows.offsets[1:] - 1).clamp(min=0))

    def _answers(self, states: Tensor, starts: Tensor, at: Tensor) -> Tensor:
        now = states[at]
        local = additive_attention(self.of_last(now), self.of_each(states), states, self.weight, starts, at + 1)
        return self.joined(dropout(torch.cat([local, now], dim=1), self.rate, self.training))  # type: ignore[no-any-return]


class NARM(NeuralRecommender[NARMSettings]):
    """The state of a recurrent unit after the last event, joined with the states that it pays attention to.

    Weights of attention are no softmax.  The recurrence looks back only, so all beginnings of a session
    are learnt from in one pass, where the original code reads each by itself.
    """

    name = "narm"
    reference = "Li et al., Neural attentive session-based recommendation, CIKM 2017"

    def _network(self, facts: Facts) -> Network:
        settings = self.config
        items = ItemEmbedding(facts.n_items, settings.dim)
        encoder = AttentiveGRU(settings.dim, settings.width, settings.layers, settings.state_dropout)
        return NextItem(Input(items, rate=settings.dropout), encoder, Head(items))

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """A small one."""
        return [{"dim": 16, "width": 16, "epochs": 30, "batch_size": 8, "learning_rate": 0.01, "state_dropout": 0.1}]
