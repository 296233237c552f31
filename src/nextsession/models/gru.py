"""A GRU under a softmax over all items: what tables of results often call GRU4Rec."""

from typing import Any

from pydantic import Field

from nextsession.answering import Facts
from nextsession.neural import NeuralRecommender, NeuralSettings
from nextsession.nn import recurrent
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.networks import Head, Input, Network, NextItem


class GRUSettings(NeuralSettings):
    """Settings of `GRU`."""

    layers: int = Field(default=1, ge=1)
    """Units on top of each other; the last is as wide as the item vectors."""
    tied: bool = True
    """The same vectors for items read and items ranked; otherwise a table of its own, with a bias for each item."""


class GRU(NeuralRecommender[GRUSettings]):
    """A gated recurrent unit reads the events of a row; the state after the last asks for the next.

    All events of a row but the first are learnt in one pass, by the softmax over all items or any other
    loss.  This is *not* the GRU4Rec of its authors (model `gru4rec`), which trains on sessions side by side, with
    its own losses, samples and optimiser; but it is what many comparisons of sequence models mean by that name,
    such as that of Klenitskiy & Vasilev, RecSys 2023.

    Dropout is of the vectors that are read, and between layers.
    """

    name = "gru"
    reference = "Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014"

    def _network(self, facts: Facts) -> Network:
        settings = self.config
        items = ItemEmbedding(facts.n_items, settings.dim)
        inputs = Input(items, rate=settings.dropout, features=facts.side_features(settings.dim, settings.feature_dim))
        encoder = recurrent.GRU(settings.dim, settings.layers, rate=settings.dropout)
        return NextItem(inputs, encoder, Head(items, tied=settings.tied, bias=not settings.tied))

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """One unit, and two with vectors of their own for the items that are ranked."""
        small = {"dim": 16, "max_length": 20, "epochs": 30, "batch_size": 8, "learning_rate": 0.01}
        return [small, {**small, "layers": 2, "tied": False}]
