"""SessionRec: whole sessions are read, what was ignored in them too, and all that is wanted in the next is foretold."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from nextsession.answering import Facts
from nextsession.config import Duration, Runtime
from nextsession.data.log import SessionLog
from nextsession.neural import NeuralRecommender, NeuralSettings
from nextsession.nn import session_encoders as within
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.features import SideFeatures
from nextsession.nn.hstu import HSTUEncoder, HSTUForm
from nextsession.nn.losses import FullSoftmax, Loss, SampledSoftmax
from nextsession.nn.negatives import ItemStatistics, Shown
from nextsession.nn.networks import CausalEncoder, Examples, Head, Input, Network
from nextsession.nn.next_session import NextSession, Tokens
from nextsession.nn.recurrent import GRU
from nextsession.nn.transformer import BlockForm, Transformer
from nextsession.reading import Keeps, Reading, kept
from nextsession.slices import Slices

_RANK = SampledSoftmax(negatives=Shown())

_PAPER: Mapping[str, Any] = {
    "open": "never",
    "time": "none",
    "batch_size": 64,
    "epochs": 200,
    "alpha": 0.2,
    "loss": {"kind": "sampled_softmax", "negatives": {"kind": "uniform", "n": 128}},
}


class SessionRecSettings(NeuralSettings):
    """Settings of `SessionRec`."""

    within: Literal["mean", "max", "max-relu", "gru", "transformer", "separate", "latest", "weighed"] = "mean"
    """How the events of a session become one vector: their mean, greatest numbers (perhaps of what is above 0), the
    last state of a GRU, the mean after a two-way Transformer, two means (wanted, ignored) mixed, these and the last
    wanted, or a weighed mean."""
    within_layers: int = Field(default=1, ge=1)
    """Layers of a GRU or Transformer within sessions."""
    within_heads: int = Field(default=1, ge=1)
    """Heads of a Transformer within sessions."""
    across: Literal["hstu", "transformer", "gru"] = "hstu"
    """What reads the sessions one after another."""
    layers: int = Field(default=4, ge=1)
    """Its layers."""
    heads: int = Field(default=2, ge=1)
    """Its heads; they divide `dim`."""
    tokens: Tokens = "sessions"
    """What is read: one vector a session, one an event (the item-level twin of the model), or both."""
    time: Literal["relative", "none"] = "relative"
    """Is attention (`across = "hstu"`) biased by the time from each session to what is asked for?"""
    alpha: float = Field(default=0.2, ge=0)
    """Weight of the rank loss: what was wanted against what the same session showed and was ignored (eq. 9-10)."""
    loss: Loss = FullSoftmax()
    """The retrieval loss: what is wanted next against all items, or against drawn ones (eq. 8)."""
    reads_ignored: bool = True
    """Are events that were shown and ignored read?"""
    ignored_only: bool = False
    """Are sessions read in which nothing was wanted?  The paper leaves them out."""
    mix_layers: int = Field(default=0, ge=0)
    """Hidden layers of the map that mixes the vector of an item with those of its features and of the event (eq. 4)."""
    open: Literal["gap", "always", "never"] = "gap"
    """When is the last session of a history still going on, so that the next event is asked for and not the next
    session: within `gap` of its last event, always, or never (and nothing is learnt of it)?"""
    gap: Duration = 1_800_000
    """Silence that ends a session, if `open = "gap"`."""
    normalise: bool = False
    """Bring queries and items to length 1 before they meet."""
    temperature: float = Field(default=1.0, gt=0)
    """Scores are divided by this."""
    max_length: int = Field(default=200, ge=1)
    """Whole sessions are read, the newest, as long as they hold no more wanted events than this (and no more than four
    times as many in all)."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the numbers set to 0 while training."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "kuaisar": _PAPER,
        "recflow": {**_PAPER, "max_length": 400},
    }

    @model_validator(mode="after")
    def _heads_divide(self) -> "SessionRecSettings":
        if self.dim % self.heads or self.dim % self.within_heads:
            raise ValueError(f"heads and within_heads must divide dim ({self.dim})")
        return self

    @model_validator(mode="after")
    def _whole_sessions(self) -> "SessionRecSettings":
        if self.reads != "history" or self.windows != "latest":
            raise ValueError(
                "the newest whole sessions of a history are read: reads must be 'history', windows 'latest'"
            )
        if any(variation.kind == "reorder" for variation in self.augment):
            raise ValueError("augment must not reorder events: sessions would be torn apart")
        return self


class SessionRec(NeuralRecommender[SessionRecSettings]):
    """Sessions are the tokens: an encoder within sessions, one across them, and everything wanted next as the target.

    The vectors of a session's events, wanted and ignored, are pooled; HSTU, a Transformer or a GRU reads the
    pooled sessions; the state after each is met with the vectors of the items.  Each wanted item of the next
    session competes with all others (retrieval), and with what that session showed and was ignored (`alpha`, ranking).
    One forward pass costs in proportion to the events, and attention to the square of the number of *sessions*.

    A session that is still going on (`open`) is read as far as it goes, and the next event is foretold: so
    visitors in their first session are served by the same model.  `tokens = "items"` is the item-level twin: all
    the same but for what is read as a token.

    With `time = "relative"` (HSTU) the state after a session knows when the next one begins, in training, and
    the instant of the question, in answers.

    Presets: `kuaisar` and `recflow`, the sizes of the paper as far as they are published.
    """

    name = "sessionrec"
    reference = (
        "Huang et al., SessionRec: Next-session prediction paradigm for generative sequential recommendation, 2025"
    )
    predicts: ClassVar[Literal["next-item", "next-session"]] = "next-session"
    reads_clock: ClassVar[bool] = True
    reads_ignored: ClassVar[bool] = True
    reads_actions: ClassVar[bool] = True
    exemptions: ClassVar[Mapping[str, str]] = {
        "clock": "A network is trained on a log as a whole; the split keeps what is later than a question out of it.",
    }

    timed_: bool
    """Had the log of training times?"""

    def _network(self, facts: Facts) -> Network:
        settings = self.config
        items = ItemEmbedding(facts.n_items, settings.dim)
        kinds = (1 if facts.actions else 0) + settings.reads_ignored
        features = None
        if facts.features or kinds:
            features = SideFeatures(
                facts.features, settings.dim, width=settings.feature_dim, layers=settings.mix_layers, beside=kinds
            )
        inputs = Input(items, n_actions=len(facts.actions), ignored=settings.reads_ignored, features=features)
        return NextSession(
            inputs,
            self._within(),
            self._across(),
            Head(items, normalise=settings.normalise, temperature=settings.temperature),
            tokens=settings.tokens,
            places=0 if settings.across == "gru" else self._longest,
            rate=settings.dropout,
            open_within={"never": 0, "always": None, "gap": settings.gap if self.timed_ else 0}[settings.open],
        )

    @property
    def _longest(self) -> int:
        """The longest sequence that is read."""
        events = 4 * self.config.max_length
        sessions = (
            events if self.config.ignored_only else self.config.max_length
        )  # in each of which something is wanted
        return {"sessions": sessions, "items": events, "both": events + sessions}[self.config.tokens]

    def _within(self) -> within.SessionEncoder:
        settings = self.config
        dim, layers = settings.dim, settings.within_layers
        match settings.within:
            case "mean":
                return within.Mean()
            case "max" | "max-relu":
                return within.Max(relu=settings.within == "max-relu")
            case "gru":
                return within.Recurrent(dim, layers)
            case "transformer":
                return within.Attentive(dim, layers, settings.within_heads, settings.dropout)
            case "separate" | "latest":
                return within.Separate(dim, latest=settings.within == "latest")
            case "weighed":
                return within.Weighed(dim)

    def _across(self) -> CausalEncoder:
        settings = self.config
        match settings.across:
            case "gru":
                return GRU(settings.dim, settings.layers, rate=settings.dropout)
            case "transformer":
                form = BlockForm(heads=settings.heads, norm="original", ffn="relu", inner=1, rate=settings.dropout)
                return Transformer(settings.dim, settings.layers, form)
            case "hstu":
                width = settings.dim // settings.heads
                shape = HSTUForm(
                    longest=self._longest,
                    heads=settings.heads,
                    dqk=width,
                    dv=width,
                    times=settings.time == "relative" and self.timed_,
                    rate=settings.dropout,
                )
                return HSTUEncoder(settings.dim, settings.layers, shape)

    def _loss(self, examples: Examples, network: Network, statistics: ItemStatistics) -> Tensor:
        found = self.config.loss(examples, network.head, statistics)
        if self.config.alpha and examples.shown is not None and len(examples.shown):
            found = found + self.config.alpha * _RANK(examples, network.head, statistics)
        return found

    @property
    def _alpha(self) -> float:
        return self.config.alpha

    # -- what is read ---------------------------------------------------------------------------

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self.timed_ = log.timed
        super()._fit(kept(log, self._keeps), runtime)

    @property
    def _keeps(self) -> Keeps:
        if not self.config.reads_ignored:
            return "wanted"
        return "all" if self.config.ignored_only else "wanted-sessions"

    @property
    def _reading(self) -> Reading:
        settings = self.config
        by_time = (settings.across == "hstu" and settings.time == "relative") or settings.open == "gap"
        return Reading(
            "whole-sessions",
            settings.max_length,
            self._keeps,
            self.facts_.actions,
            "fit a model with time = 'none' and open = 'never'" if self.timed_ and by_time else "",
        )

    @property
    def uncompiled(self) -> str:
        """Why the network cannot be written down; see the base."""
        if self.config.within in ("gru", "transformer"):
            return f"within = {self.config.within!r} reads the events of each session by themselves with torch"
        return super().uncompiled

    def _taught(self, log: SessionLog) -> Slices:
        return self._reading.slices(log)

    # -- keeping --------------------------------------------------------------------------------

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {**super()._arrays(), "timed": np.array([self.timed_])}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.timed_ = bool(arrays["timed"][0])
        super()._restore(arrays)

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Every encoder within and across sessions once, and the other tokens."""
        small = {"dim": 16, "layers": 2, "max_length": 20, "epochs": 30, "batch_size": 8, "learning_rate": 0.01}
        few = {**small, "epochs": 15}
        return [
            small,
            {**few, "within": "separate", "across": "transformer", "open": "always"},
            {**small, "within": "gru", "across": "gru", "layers": 1, "open": "never", "ignored_only": True},
            {**few, "within": "transformer", "tokens": "both", "normalise": True, "temperature": 0.05},
            {**few, "within": "max-relu", "tokens": "items", "time": "none", "reads_ignored": False},
            {**few, "within": "weighed", "preset": "kuaisar"},
            {**few, "within": "latest", "open": "always"},
            {**few, "within": "separate", "moment": {"windows": ["1h", "1d"], "audience": 4, "habits": True}},
        ]
