"""BST: a behaviour sequence transformer, which scores one candidate at a time behind a first stage."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from nextsession import registry
from nextsession.answering import Facts
from nextsession.config import Runtime
from nextsession.data.log import SessionLog
from nextsession.errors import ModelError
from nextsession.neural import NeuralRecommender, NeuralSettings
from nextsession.nn.batches import Rows
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.negatives import ItemStatistics
from nextsession.nn.networks import Examples, Head, Network, shifted
from nextsession.nn.ops.dropout import dropout
from nextsession.recommender import Recommender
from nextsession.scores import SparseScores
from nextsession.slices import Slices, Windows, latest

_AGES = 64
"""Buckets of the time between an event and the question; the last is of the candidate itself."""
_SCORED = 1 << 17
"""Pairs of a candidate and an event of its history that are scored at once."""


class BSTSettings(NeuralSettings):
    """Settings of `BST`."""

    first_stage: str = "vsknn"
    """The model whose best items are ranked, with its default settings."""
    candidates: int = Field(default=200, ge=1)
    """Items of the first stage that are ranked for a question."""
    max_length: int = Field(default=20, ge=1)
    """Newest events of a row that are read."""
    windows: Windows = "prefixes"
    """Every event is a candidate that its history is asked about."""
    batch_size: int = Field(default=256, ge=1)
    """Rows in a step, at most."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the rows of training, at most."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the numbers set to 0 while training."""
    age_dim: int = Field(default=16, ge=1)
    """Width of the vector of an age, which is put beside that of the item."""
    heads: int = Field(default=8, ge=1)
    """Heads of attention; they divide `dim + age_dim`."""
    layers: int = Field(default=1, ge=1)
    """Blocks.  With one, and the target read out, a candidate costs `O(L D)`; otherwise `O(L^2 D)`."""
    readout: Literal["target", "flatten"] = "target"
    """What goes into the ranking network: the output at the candidate, or the outputs at all places."""
    mlp: tuple[int, ...] = (256, 128)
    """Widths of the ranking network; the paper has 1024, 512, 256."""
    ages: Literal["time", "order"] = "time"
    """Whether the age of an event is the time since it (where the log has times), or the events since it."""
    negatives: int = Field(default=4, ge=1)
    """Items drawn beside each wanted event, half alike, half by popularity; none where ignored items were logged."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bst-2019": {"mlp": (1024, 512, 256), "optimiser": "adagrad", "learning_rate": 0.01, "epochs": 1},
    }

    @model_validator(mode="after")
    def _no_moments(self) -> "BSTSettings":
        if self.moment is not None:
            raise ValueError("bst ranks candidates one by one and has no query to meet a moment with: leave moment out")
        return self


class BST(NeuralRecommender[BSTSettings]):
    """Ranks what a first stage found: is this candidate wanted, after this history?

    The candidate is the last token of the history.  A token is the vector of an item beside that of
    its age, the time from the event to the question in logarithmic buckets; blocks are post-norm
    with LeakyReLU, without a causal mask; what comes out at the candidate goes through a small
    network to one number, trained by binary cross-entropy.  Events shown and ignored are the
    negatives where the log has them, drawn items where it has not.  A list can hold no item that the
    first stage has not among its best `candidates`.
    """

    name = "bst"
    reference = "Chen et al., Behavior sequence transformer for e-commerce recommendation in Alibaba, DLP-KDD 2019"
    reads_clock: ClassVar[bool] = True
    reads_ignored: ClassVar[bool] = True
    least_events: ClassVar[int] = 1
    exemptions: ClassVar[Mapping[str, str]] = {
        "clock": "Weights are learnt from the whole log, so what follows the question may be in no log it learns from."
    }

    @property
    def uncompiled(self) -> str:
        """Why the network cannot be written down; see the base."""
        return "it ranks what another model finds, one candidate at a time"

    first_: Recommender[Any]
    timed_: NDArray[np.bool_]  # (1,) are ages times?

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self.first_ = registry.create(self.config.first_stage).fit(log, runtime=runtime)
        self.timed_ = np.array([log.timed and self.config.ages == "time"])
        super()._fit(log, runtime)

    def _rows(self, log: SessionLog) -> Rows:
        """Return rows that reach back to as many wanted events before the candidate as answers read."""
        rows = super()._rows(log)
        offsets = log.session_offsets if self.config.reads == "session" else log.event_offsets
        return replace(rows, slices=_reaching(rows.slices, offsets, log, self.config.max_length))

    def _network(self, facts: Facts) -> "Ranker":
        return Ranker(ItemEmbedding(facts.n_items, self.config.dim), self.config, timed=bool(self.timed_[0]))

    def _loss(self, examples: Examples, network: Network, statistics: ItemStatistics) -> Tensor:
        asked = cast("Asked", examples)
        ranker = cast("Ranker", network)
        if asked.labels is not None:
            logits = ranker.score(asked.history, asked.positives[:, None])[:, 0]
            return F.binary_cross_entropy_with_logits(logits, asked.labels)
        half = self.config.negatives // 2
        shape = (len(asked.positives), self.config.negatives - half)
        alike = statistics.known[torch.randint(len(statistics.known), shape, device=asked.positives.device)]
        cumulative, _ = statistics.popularity(1.0, False)
        places = torch.rand(len(asked.positives), half, dtype=torch.float64, device=cumulative.device)
        drawn = torch.cat([alike, torch.searchsorted(cumulative, places, right=True)], dim=1)
        logits = ranker.score(asked.history, torch.cat([asked.positives[:, None], drawn], dim=1))
        wanted = torch.zeros_like(logits)
        wanted[:, 0] = 1
        other = torch.ones_like(logits)
        other[:, 1:] = (drawn != asked.positives[:, None]).to(logits.dtype)  # what is wanted is no negative
        return F.binary_cross_entropy_with_logits(logits, wanted, weight=other, reduction="sum") / other.sum()

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> SparseScores:
        found = self.first_.scores(histories, asked_at=asked_at).top(self.config.candidates).items
        own = histories.positives()  # only what was wanted is a history
        starts, stops = own.event_offsets[:-1], own.event_offsets[1:]
        if self.config.reads == "session":
            starts, stops = own.last_sessions
        asked = Slices(np.maximum(starts, stops - self.config.max_length), stops)
        if self.config.reads == "history":
            asked = latest(own.event_offsets, self.config.max_length)
        rows = Rows(own, asked, asked_at)
        step = max(1, _SCORED // (max(1, found.shape[1]) * self.config.max_length))
        scores = np.zeros(found.shape, np.float32)
        ranker = cast("Ranker", self.network_)
        with torch.inference_mode():
            for start in range(0, len(own), step):
                part = np.arange(start, min(start + step, len(own)))
                items = torch.from_numpy(found[part].astype(np.int64)).clamp(min=0)
                scores[part] = ranker.score(rows.batch(part), items).numpy()
        known = found >= 0
        offsets = np.concatenate([[0], np.cumsum(known.sum(axis=1))]).astype(np.int64)
        return SparseScores(offsets, found[known], scores[known], len(self.vocabulary_))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        first = {f"first/{name}": array for name, array in self.first_._arrays().items()}
        return {**super()._arrays(), **first, "timed": self.timed_}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.timed_ = arrays["timed"]
        self.first_ = registry.create(self.config.first_stage)
        self.first_.vocabulary_, self.first_.trained_until_ = self.vocabulary_, self.trained_until_
        self.first_._restore({k.removeprefix("first/"): v for k, v in arrays.items() if k.startswith("first/")})
        super()._restore(arrays)

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """The fast form, and the one that reads out all places, with ages in time (those of the first are events)."""
        small = {
            "dim": 28, "age_dim": 4, "heads": 2, "mlp": (16,), "epochs": 35, "batch_size": 16, "max_length": 4,
            "learning_rate": 0.005, "candidates": 50, "dropout": 0.0, "ages": "order",
        }  # fmt: skip
        return [small, {**small, "readout": "flatten", "layers": 2, "ages": "time", "epochs": 2}]


@dataclass(frozen=True, eq=False)
class Asked(Examples):
    """Histories with a candidate each; a ranker has no queries, so there are none."""

    history: Batch = None  # type: ignore[assignment]
    labels: Tensor | None = None  # (M,) was the candidate wanted?  None: all were


class Ranker(Network):
    """Scores candidates after histories."""

    def __init__(self, items: ItemEmbedding, settings: BSTSettings, *, timed: bool) -> None:
        """Draw everything as BERT does: vectors by a normal distribution, maps by Glorot's, biases 0."""
        super().__init__()
        width = settings.dim + settings.age_dim
        self.items, self.timed, self.settings = items, timed, settings
        self.head = Head(items)  # a ranker offers no queries, but the vectors of its items are there to look at
        self.ages = nn.Parameter(torch.empty(_AGES, settings.age_dim))
        nn.init.trunc_normal_(self.ages, std=0.02)
        self.blocks = nn.ModuleList(TargetBlock(width, settings) for _ in range(settings.layers))
        places = settings.max_length + 1 if settings.readout == "flatten" else 1
        sizes = (places * width, *settings.mlp)
        hidden = [part for a, z in itertools.pairwise(sizes) for part in (nn.Linear(a, z), nn.LeakyReLU())]
        self.rank = nn.Sequential(*hidden, nn.Linear(sizes[-1], 1))
        for weight in self.rank.parameters():
            nn.init.xavier_uniform_(weight) if weight.dim() > 1 else nn.init.zeros_(weight)

    def forward(self, batch: Batch) -> Tensor:
        """Refuse: a ranker has no query that stands for a history."""
        raise ModelError("bst scores candidates one by one; it has no query to look items up with.")

    def examples(self, batch: Batch) -> Asked:
        """Return every row without its last event, which is the candidate."""
        some = batch.events.lengths > 0
        known, _, _ = shifted(batch)
        labels = None if batch.labels is None else batch.events.with_values(batch.labels).last()[some].float()
        history = _wanted(known)
        return Asked(self.ages[:0], batch.events.last()[some], history=_chosen(history, some), labels=labels)

    def score(self, batch: Batch, candidates: Tensor) -> Tensor:
        """Return the logit of each candidate, `(B, C)`, after the history of its row."""
        settings = self.settings
        history = batch.events.with_values(
            dropout(torch.cat([self.items(batch.events.values), self.ages[self._age(batch.events)]], -1),
                    settings.dropout, self.training)
        )  # fmt: skip
        own = self.ages[-1].expand(*candidates.shape, -1)
        targets = torch.cat([self.items(candidates), own], -1)
        if settings.readout == "target" and settings.layers == 1:
            return self.rank(cast("TargetBlock", self.blocks[0]).at_targets(history, targets))[..., 0]  # type: ignore[no-any-return]
        return self._score_plainly(history, targets)

    def _score_plainly(self, history: Jagged, targets: Tensor) -> Tensor:
        """Score every candidate in a sequence of its own, `(B, C, D)` to `(B, C)`."""
        b, c, width = targets.shape
        length = self.settings.max_length
        view = history.padded()[:, -length:] if history.longest else targets.new_zeros(b, 0, width)
        mask = history.mask if history.longest else torch.zeros(b, 0, dtype=torch.bool, device=targets.device)
        tokens = torch.cat([view[:, None].expand(b, c, *view.shape[1:]), targets[:, :, None]], dim=2).flatten(0, 1)
        seen = torch.cat([mask, torch.ones_like(mask[:, :1]) if mask.shape[1] else mask.new_ones(b, 1)], dim=1)
        seen = seen[:, None].expand(b, c, -1).flatten(0, 1)
        for block in self.blocks:
            tokens = block(tokens, seen)
        if self.settings.readout == "target":
            return self.rank(tokens[:, -1]).view(b, c)  # type: ignore[no-any-return]
        flat = tokens.new_zeros(b * c, length + 1, width)
        flat[:, : tokens.shape[1] - 1] = tokens[:, :-1] * seen[:, :-1, None]
        flat[:, -1] = tokens[:, -1]
        return self.rank(flat.flatten(1)).view(b, c)  # type: ignore[no-any-return]

    def _age(self, events: Jagged) -> Tensor:
        """Return the bucket of each event, `(N,)`: `ln(seconds before the question) / 0.301`, or the events since."""
        last = _AGES - 2
        if not self.timed:
            return events.from_end.clamp(max=last)
        assert events.times is not None
        assert events.asked_at is not None
        seconds = (events.asked_at[events.rows] - events.times).clamp(min=1000).double() / 1000
        return (seconds.log() / 0.301).long().clamp(max=last)


class TargetBlock(nn.Module):
    """`S' = LN(S + Attention(S))`, `LN(S' + FFN(S'))`, every token seeing all others."""

    def __init__(self, width: int, settings: BSTSettings) -> None:
        """Build a block."""
        super().__init__()
        self.heads, self.rate = settings.heads, settings.dropout
        self.of_query, self.of_key, self.of_value, self.project = (nn.Linear(width, width) for _ in range(4))
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.attention_norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        for linear in (self.of_query, self.of_key, self.of_value, self.project, self.widen, self.narrow):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Map tokens `(R, T, D)` to tokens; `seen` `(R, T)` says which there are."""
        q, k, v = (self._split(of(tokens)) for of in (self.of_query, self.of_key, self.of_value))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
        return self._rest(tokens, mixed.transpose(1, 2).flatten(2))

    def at_targets(self, history: Jagged, targets: Tensor) -> Tensor:
        """Return what `forward` gives at each candidate, `(B, C, D)`, without asking the history anything.

        In the first block keys and values of the history do not depend on the candidate, so they are
        worked out once; each candidate sees them and itself.
        """
        b, c, _ = targets.shape
        q, own_k, own_v = (
            self._split(of(targets)) for of in (self.of_query, self.of_key, self.of_value)
        )  # (B, H, C, d)
        scale = q.shape[-1] ** -0.5
        own = (q * own_k).sum(-1, keepdim=True) * scale  # (B, H, C, 1)
        if history.longest == 0:
            return self._rest(targets, own_v.transpose(1, 2).flatten(2))
        k = self._split(history.with_values(self.of_key(history.values)).padded())  # (B, H, L, d)
        v = self._split(history.with_values(self.of_value(history.values)).padded())
        logits = (q @ k.transpose(-1, -2) * scale).masked_fill(~history.mask[:, None, None], -torch.inf)
        weights = torch.cat([logits, own], -1).softmax(-1)
        mixed = weights[..., :-1] @ v + weights[..., -1:] * own_v
        return self._rest(targets, mixed.transpose(1, 2).reshape(b, c, -1))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)  # (B, H, T, d)

    def _rest(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = self.attention_norm(x + dropout(self.project(mixed), self.rate, self.training))
        fed = self.narrow(F.leaky_relu(self.widen(x)))
        return self.ffn_norm(x + dropout(fed, self.rate, self.training))  # type: ignore[no-any-return]


def _reaching(slices: Slices, offsets: NDArray[np.int64], log: SessionLog, length: int) -> Slices:
    """Let rows begin where `length` wanted events come before their last event, or with the row of the log.

    Ignored events do not count: a history is of what was wanted, in training as in answers.  Nor do
    those of the same instant where ignored events are logged (see `_wanted`).
    """
    if not len(slices):
        return slices
    wanted, asked = np.flatnonzero(log.labels == 1), slices.stops - 1
    if log.labels.strides != (0,):
        begins_list = np.append(True, log.times[1:] != log.times[:-1])
        asked = np.maximum.accumulate(np.where(begins_list, np.arange(len(begins_list)), 0))[asked]
    before = np.searchsorted(wanted, asked)
    begins = offsets[np.searchsorted(offsets, slices.stops - 1, side="right") - 1]
    reached = np.where(before >= length, wanted[np.maximum(before - length, 0)], 0)
    return Slices(np.maximum(begins, reached), slices.stops)


def _wanted(batch: Batch) -> Batch:
    """Return the batch without events that were ignored; sessions are not kept.

    Where ignored events are logged, those of one instant are one list of what was shown, and what
    else was wanted of the list that the candidate is in tells of it: that goes too.
    """
    if batch.labels is None:
        return batch
    events, kept = batch.events, batch.labels == 1
    if events.times is not None and events.asked_at is not None:
        kept &= events.times < events.asked_at[events.rows]
    counts = torch.zeros_like(events.lengths).index_add(0, events.rows[kept], torch.ones_like(events.rows[kept]))
    offsets = torch.zeros_like(events.offsets)
    torch.cumsum(counts, 0, out=offsets[1:])
    times = None if events.times is None else events.times[kept]
    longest = int(counts.max()) if len(counts) else 0
    return Batch(Jagged(events.values[kept], offsets, longest, times, events.asked_at), batch.sessions)


def _chosen(batch: Batch, rows: Tensor) -> Batch:
    """Return the rows of a mask; those left out must be empty."""
    events = batch.events
    offsets = torch.cat([events.offsets[:1], events.offsets[1:][rows]])
    asked = None if events.asked_at is None else events.asked_at[rows]
    return Batch(Jagged(events.values, offsets, events.longest, events.times, asked), batch.sessions)
