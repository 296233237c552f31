"""Transducers: what the models have in common that read events by HSTU blocks (`nextsession.nn.hstu`)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from nextsession.answering import Facts
from nextsession.config import Runtime
from nextsession.data.log import SessionLog
from nextsession.neural import NeuralRecommender, NeuralSettings
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.hstu import HSTUEncoder, HSTUForm
from nextsession.nn.networks import Head, Input
from nextsession.reading import Reading

_SAMPLED = {"kind": "sampled_softmax", "negatives": {"kind": "uniform", "n": 128, "all_items": True}}

PUBLISHED: Mapping[str, Any] = {
    "dim": 50,
    "layers": 2,
    "heads": 1,
    "time": "relative",
    "distance": True,
    "normaliser": "constant",
    "concat": False,
    "positions": True,
    "temperature": 0.05,
    "dropout": 0.2,
    "loss": _SAMPLED,
    "optimiser": "adamw",
    "learning_rate": 1e-3,
    "betas": (0.9, 0.98),
    "weight_decay": 0.0,
    "batch_size": 128,
    "epochs": 101,
    "max_length": 200,
}
"""What the authors trained the small model of MovieLens 1M with."""


class TransducerSettings(NeuralSettings):
    """Settings of every transducer."""

    layers: int = Field(default=2, ge=1)
    """Blocks."""
    heads: int = Field(default=1, ge=1)
    """Heads of each; they divide `dim` unless `dqk` and `dv` are given."""
    dqk: int | None = Field(default=None, ge=1)
    """Width of a query or a key of one head; none: `dim / heads`."""
    dv: int | None = Field(default=None, ge=1)
    """Width of a value of one head; none: `dim / heads`."""
    time: Literal["relative", "none"] = "relative"
    """Is attention biased by the time from each event to the question?  Logs without times teach no such bias."""
    distance: bool = True
    """Is attention biased by how many events lie between two?"""
    positions: bool = True
    """Has each place in a row a learned vector, counted from the oldest event that is read?"""
    normaliser: Literal["constant", "length"] = "length"
    """Sums over events are divided by one number, as published, or by how many events there are."""
    concat: bool = False
    """Show the last map of a block the gate and what was attended to, beside their product."""
    temperature: float = Field(default=0.05, gt=0)
    """Cosines of queries and items are divided by this."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the numbers set to 0 while training."""
    optimiser: Literal["adam", "adamw", "adagrad", "sgd"] = "adamw"
    """What turns gradients into steps."""
    betas: tuple[float, float] = (0.9, 0.98)
    """How slowly the two moments of Adam forget."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "TransducerSettings":
        if (self.dqk is None or self.dv is None) and self.dim % self.heads:
            raise ValueError(f"heads must divide dim ({self.dim}) unless dqk and dv are given, got {self.heads}")
        return self


T = TypeVar("T", bound=TransducerSettings)


class Transducer(NeuralRecommender[T]):
    """Base of the models that read rows by HSTU blocks: they say what their network foretells, all else is here.

    With `time = "relative"` the state after an event knows when the next one happens, in training, and
    the instant of the question, in answers.
    """

    reads_clock: ClassVar[bool] = True
    exemptions: ClassVar[Mapping[str, str]] = {
        "clock": "A network is trained on a log as a whole; the split keeps what is later than a question out of it.",
    }

    timed_: bool
    """Had the log of training times?"""

    def _items(self, facts: Facts) -> ItemEmbedding:
        items = ItemEmbedding(facts.n_items, self.config.dim)
        _truncated_normal(items.weight, 0.02)
        return items

    def _inputs(self, items: ItemEmbedding, facts: Facts) -> Input:
        settings = self.config
        places = settings.max_length if settings.positions else 0
        inputs = Input(
            items,
            positions=places,
            scale=True,
            rate=settings.dropout,
            features=facts.side_features(settings.dim, settings.feature_dim),
            **self._kinds(facts),
        )
        if inputs.positions is not None:
            _truncated_normal(inputs.positions, settings.dim**-0.5)
        return inputs

    def _kinds(self, facts: Facts) -> dict[str, Any]:
        """Return what the input reads beside items."""
        return {}

    def _encoder(self) -> HSTUEncoder:
        settings = self.config
        form = HSTUForm(
            longest=settings.max_length,
            heads=settings.heads,
            dqk=settings.dqk or settings.dim // settings.heads,
            dv=settings.dv or settings.dim // settings.heads,
            positions=settings.distance,
            times=settings.time == "relative" and self.timed_,
            normaliser=settings.normaliser,
            concat=settings.concat,
            rate=settings.dropout,
        )
        return HSTUEncoder(settings.dim, settings.layers, form)

    def _head(self, items: ItemEmbedding) -> Head:
        return Head(items, normalise=True, temperature=self.config.temperature)

    # -- times ----------------------------------------------------------------------------------

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self.timed_ = log.timed
        super()._fit(log, runtime)

    @property
    def _reading(self) -> Reading:
        timed = self.config.time == "relative" and self.timed_
        return replace(super()._reading, timeless="fit a model with time = 'none'" if timed else "")

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {**super()._arrays(), "timed": np.array([self.timed_])}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.timed_ = bool(arrays["timed"][0])
        super()._restore(arrays)


def _truncated_normal(weight: nn.Parameter, std: float) -> None:
    """Draw from a normal distribution of which the tails beyond two standard deviations are cut."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
