"""BERT4Rec: two-way attention that learns by finding hidden events."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from nextsession.answering import Facts
from nextsession.data.log import SessionLog
from nextsession.neural import NeuralRecommender, NeuralSettings
from nextsession.nn.batches import Rows
from nextsession.nn.cloze import Cloze, TransformedHead
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.networks import Network
from nextsession.nn.transformer import BlockForm, Transformer
from nextsession.reading import Reading
from nextsession.slices import sliding

_EPS = 1e-12


class BERT4RecSettings(NeuralSettings):
    """Settings of `BERT4Rec`; by default those of `bert4rec+`."""

    layers: int = Field(default=2, ge=1)
    """Blocks of attention."""
    heads: int = Field(default=2, ge=1)
    """Heads of each; they divide `dim`."""
    inner: int = Field(default=4, ge=1)
    """Inner width of the feed-forward part in multiples of `dim`."""
    masked: float = Field(default=0.2, gt=0, lt=1)
    """Share of the events of a row that is hidden in a step, one at least."""
    last_only: float = Field(default=0.1, ge=0, le=1)
    """Chance that only the last event of a row is hidden, as when questions are answered."""
    stride: float = Field(default=0.5, gt=0, le=1)
    """With `windows = "chunks"`: from one piece of a long row to the next, as a share of `max_length`."""
    epochs: int = Field(default=200, ge=1)
    """Passes over the rows of training, at most."""
    patience: int = Field(default=20, ge=0)
    """Validations without a better score before training ends; 0: train all epochs."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bert4rec": {
            "windows": "chunks",
            "last_only": 1 / 11,
            "dropout": 0.2,
            "batch_size": 256,
            "optimiser": "adamw",
            "learning_rate": 1e-4,
            "weight_decay": 0.01,
            "schedule": "linear",
            "warmup": 0.00025,
            "clip": 5.0,
            "epochs": 12_000,
            "patience": 0,
        },
        "bert4rec+": {},
    }


class BERT4Rec(NeuralRecommender[BERT4RecSettings]):
    """Some events of a row are hidden and foretold from both sides; a question is a hidden event after the history.

    Every hidden event is read as the same token.  `LN(E[x] + P)`, blocks of BERT (normalised after
    each part), and scores `LN(gelu(W h + b)) . E[i] + b_i`; the loss is that of the hidden events alone.
    Presets: `bert4rec` (the paper's code, on MovieLens-1M: ten maskings of each window for one that hides
    the last event, 400,000 steps; a linear rise over 100 of them, then a fall to nothing), `bert4rec+`
    (Klenitskiy & Vasilev 2023).  It needs many more epochs than models that learn from every event at
    once: a comparison after twenty says nothing (Petrov & Macdonald 2022).
    """

    name = "bert4rec"
    reference = (
        "Sun et al., BERT4Rec: Sequential recommendation with bidirectional encoder representations from "
        "Transformer, CIKM 2019"
    )
    least_events: ClassVar[int] = 1

    def _rows(self, log: SessionLog) -> Rows:
        settings = self.config
        if settings.windows != "chunks":
            return super()._rows(log)
        offsets = log.session_offsets if settings.reads == "session" else log.event_offsets
        step = max(1, int(settings.stride * settings.max_length))
        found = sliding(offsets, settings.max_length, step)
        return Rows(log, found, None, self._reading.kinds(log), self._augmentation())

    @property
    def _reading(self) -> Reading:
        return replace(super()._reading, max_length=max(1, self.config.max_length - 1))  # a hidden event stands last

    def _network(self, facts: Facts) -> Network:
        settings = self.config
        items = ItemEmbedding(facts.n_items, settings.dim, special=1)
        form = BlockForm(
            heads=settings.heads,
            norm="post",
            ffn="gelu",
            inner=settings.inner,
            causal=False,
            rate=settings.dropout,
            inner_rate=0.0,
            eps=_EPS,
        )
        network = Cloze(
            items,
            Transformer(settings.dim, settings.layers, form),
            TransformedHead(items, eps=_EPS),
            length=settings.max_length,
            masked=settings.masked,
            last_only=settings.last_only,
            rate=settings.dropout,
            eps=_EPS,
        )
        _draw(network)
        return network

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Both recipes, small; the first learns from every beginning of a session, as questions are asked."""
        small = {"dim": 32, "layers": 1, "max_length": 20, "epochs": 40, "batch_size": 32, "learning_rate": 0.006}
        few = {"dim": 8, "max_length": 6, "epochs": 5, "batch_size": 16, "warmup": 0.1}
        return [
            {**small, "windows": "prefixes", "last_only": 0.8, "dropout": 0.0},
            {"preset": "bert4rec", **few},
        ]


def _draw(network: nn.Module) -> None:
    """Draw maps and tables within two standard deviations of .02; biases begin at 0."""
    for name, weight in network.named_parameters():
        if weight.dim() >= 2:
            nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
