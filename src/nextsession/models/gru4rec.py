"""GRU4Rec: a recurrent network over the events of a session, trained in session-parallel batches."""

import contextlib
import itertools
import math
import time
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from nextsession.config import Runtime, Settings
from nextsession.data.cases import Cases
from nextsession.data.log import SessionLog, offsets_of
from nextsession.errors import TrainingError
from nextsession.mapping import RowReader
from nextsession.nn.gru4rec_cell import laid_end_to_end, size_of, walk, weights_of
from nextsession.nn.gru4rec_epoch import EMBEDDINGS, Moved, Rules, Sampling, epoch
from nextsession.nn.gru4rec_losses import ACTIVATIONS, LOSSES
from nextsession.nn.gru4rec_math import alias_table
from nextsession.nn.gru4rec_products import padded
from nextsession.recommender import Recommender
from nextsession.scores import DotScores

CURVE = ("epoch", "loss", "validation", "cpu_seconds")
"""Columns of `curve_`."""

_NEVER = np.float32(-1e9)  # the bias of an item that no training event held: it comes last
_EVENTS = 20_000  # whose gates are computed together when answers are given
_FEW = 64  # histories that are asked about at once, up to which states are looked up
_STATES = 4_000  # that are remembered: some hundreds of bytes each, and four for each event
_CUTOFF = 20  # length of the lists of a validation


class GRU4RecSettings(Settings):
    """Settings of `GRU4Rec`; the defaults are the published ones for RSC15."""

    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(100,), min_length=1)
    """Units of each layer."""
    embedding: Literal["constrained", "separate", "none"] = "constrained"
    """What an item is when it goes in: the vector it is scored with, one of its own, or three gates of its own."""
    embedding_dim: int | None = Field(default=None, ge=1)
    """Width of separate vectors; none: the units of the first layer."""
    reset_gate: Literal["before", "after"] = "before"
    """The reset gate is applied to the state before its product (as published), or after it (as in cuDNN)."""
    loss: Literal["cross-entropy", "bpr-max", "bpr", "top1", "top1-max"] = "cross-entropy"
    """What is minimised: over all candidates (large logs), or in pairs (`bpr-max`: small logs)."""
    batch_size: int = Field(default=32, ge=1)
    """Sessions side by side; the targets of the others are negatives."""
    n_sample: int = Field(default=2048, ge=0)
    """Further negatives, drawn for the whole batch."""
    sample_alpha: float = Field(default=0.75, ge=0, le=1)
    """They are drawn in proportion to this power of the popularity: 0 all alike, 1 as popular."""
    logq: float | Literal["exact"] = 1.0
    """Cross-entropy: how much of the logarithm of the popularity that candidates owe to the way they are drawn is
    taken off their scores, 0 nothing; "exact": the logarithm of how often each is expected among them."""
    bpreg: float = Field(default=1.0, ge=0)
    """BPR-max: weight of the squared scores of the negatives."""
    activation: Literal["linear", "elu", "tanh"] = "linear"
    """Applied to the scores before a pairwise loss."""
    elu: float = Field(default=0.5, gt=0)
    """Scale of the negative part of `elu`."""
    dropout_embed: float = Field(default=0.1, ge=0, lt=1)
    """Share of the input that is dropped in training (of nothing if the embedding is none)."""
    dropout_hidden: float = Field(default=0.0, ge=0, lt=1)
    """Share of the state that is dropped in training."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Of Adagrad."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Share of the last step that is taken again."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the log, at most."""
    random_order: bool = False
    """Begin sessions in an order drawn anew each epoch, not by time."""
    reads: Literal["session", "history"] = "session"
    """The state begins at zero with each session, or with each person."""
    patience: int = Field(default=0, ge=0)
    """Stop after so many epochs without a better MRR@20 of the validation, and keep the best; 0: never."""

    @model_validator(mode="after")
    def _fitting(self) -> "GRU4RecSettings":
        if self.activation != "linear" and self.loss == "cross-entropy":
            raise ValueError(f"activation must be linear with the loss cross-entropy, got {self.activation!r}")
        if self.n_sample == 0 and self.batch_size == 1:
            raise ValueError("batch_size must be at least 2 with n_sample 0: there would be no negatives")
        if isinstance(self.logq, float) and self.logq < 0:
            raise ValueError(f"logq must be at least 0 or 'exact', got {self.logq}")
        return self


class Shape(NamedTuple):
    """Widths of the network."""

    n_inputs: NDArray[np.int64]  # (layers,) of what goes into each layer; 0 where items have gates of their own
    n_units: NDArray[np.int64]  # (layers,)
    of_item: int
    """Numbers that an item is when it goes in."""


_Layer: TypeAlias = tuple[NDArray[np.float32] | None, NDArray[np.float32], NDArray[np.float32]]
"""What inputs are multiplied with, `(inputs, 3H)` (none: they are gates already), the recurrent weights, the biases."""


class _Ready(NamedTuple):
    """What answers need, and the states after histories that were asked about lately.

    A state follows from the events before it and from nothing else, so they are its name: whoever comes back with one
    more event costs one step, whatever the history is, and one whose past has changed costs all of them.
    """

    cells: NDArray[np.float32]  # of which it was found out,
    items: NDArray[np.float32]  # and these
    reader: RowReader[np.float32]
    """Gives the vectors of items that go in."""
    layers: list[_Layer]
    widths: list[int]  # (layers + 1,) where the state of each layer begins
    states: dict[bytes, NDArray[np.float32]]  # those of all layers, by the codes of the events; the oldest first

    def remember(self, name: bytes, state: NDArray[np.float32]) -> None:
        """Keep a state, in place of the oldest if there are too many."""
        self.states.pop(name, None)
        self.states[name] = state
        with contextlib.suppress(RuntimeError):  # another thread was quicker
            while len(self.states) > _STATES:
                self.states.pop(next(iter(self.states)), None)


class GRU4Rec(Recommender[GRU4RecSettings]):
    """Ranks items by `h . v_i + b_i`, where `h` is the state of a GRU that has read the session.

    Training takes the next event of `batch_size` sessions at a time; each is told from the targets
    of the others and from `n_sample` items drawn by popularity.  The state is carried along but
    gradients are not (they reach back one event), Adagrad has its constant inside the root, and the
    sum of the losses is divided by the configured batch size: all as published and as in the
    authors' code.  The loop is compiled, on one core, with gradients written out; equal items among
    the candidates are computed once.

    An empty history is ranked by popularity, and items without a training event come last.
    """

    name = "gru4rec"
    reference = (
        "Hidasi et al., Session-based recommendations with recurrent neural networks, ICLR 2016; "
        "Hidasi and Karatzoglou, Recurrent neural networks with top-k gains, CIKM 2018"
    )
    stochastic: ClassVar[bool] = True
    by_recipe: ClassVar[bool] = True

    items_: NDArray[np.float32]  # (V, H + 2) vectors, biases, and for empty histories the log of the popularity
    inputs_: NDArray[np.float32]  # (V, width) what items are when they go in; no rows if that is their vector
    cells_: NDArray[np.float32]  # the layers, end to end: see gru4rec_cell.weights_of
    curve_: NDArray[np.float64]  # (epochs, 4) see CURVE; validation is NaN where there was none

    _found_out: "_Ready | None" = None

    # -- learning -------------------------------------------------------------------------------

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        settings, shape = self.config, self._shape()
        rng = np.random.default_rng(runtime.seed)
        support = np.bincount(log.items, minlength=log.n_items).astype(np.float64)
        offsets = log.session_offsets if settings.reads == "session" else log.event_offsets
        starts, stops = offsets[:-1], offsets[1:]
        some = np.flatnonzero(stops - starts > 1)
        order = some[np.argsort(log.times[starts[some]], kind="stable")]
        events = np.array(log.items)  # a copy can be written to: compiled code for arrays that cannot would be another
        items, inputs, cells = self._initial(log.n_items, shape, rng)
        rules, sampling = self._rules(), self._sampling(support)
        validation = [cases for cases in self._validation if len(cases)]
        curve: list[tuple[float, float, float, float]] = []
        best, kept, since = -math.inf, (items.values, inputs.values, cells.values), 0
        for number in range(1, settings.epochs + 1) if len(order) else ():
            began = time.process_time()
            if settings.random_order:
                order = rng.permutation(order)
            loss, n_pairs, failed = epoch(
                events, starts[order], stops[order], items, items if shape.of_item == 0 else inputs, cells,
                shape.n_inputs, shape.n_units, rules, sampling, np.uint64(rng.integers(2**63)),
            )  # fmt: skip
            if failed >= 0:
                raise TrainingError(
                    f"The loss of {self.name} is no longer a number, in epoch {number} at step {failed}: "
                    f"lower learning_rate (it is {settings.learning_rate:g})"
                    + (f" or momentum (it is {settings.momentum:g})." if settings.momentum else ".")
                )
            spent, score = time.process_time() - began, math.nan
            if validation:
                self._keep(items.values, inputs.values, cells.values, support)
                score = self._validated(validation)
            curve.append((number, loss / max(n_pairs, 1), score, spent))
            self._progress(f"{self.name}: loss {loss / max(n_pairs, 1):.4f}", number, settings.epochs)
            if settings.patience and validation:
                since += 1
                if score > best:
                    best, since = score, 0
                    kept = (items.values.copy(), inputs.values.copy(), cells.values.copy())
                if since == settings.patience:
                    break
        del items, inputs, cells  # what only learning needs is as large as what was learnt
        self._keep(*kept, support)
        self.curve_ = np.array(curve, np.float64).reshape(-1, len(CURVE))

    def _shape(self) -> Shape:
        settings = self.config
        units = np.array(settings.layers, np.int64)
        first, of_item = units[-1], 0
        if settings.embedding == "separate":
            first = of_item = settings.embedding_dim or settings.layers[0]
        elif settings.embedding == "none":
            first, of_item = 0, 3 * settings.layers[0]
        return Shape(np.concatenate([[first], units[:-1]]).astype(np.int64), units, of_item)

    def _initial(self, n_items: int, shape: Shape, rng: np.random.Generator) -> tuple[Moved, Moved, Moved]:
        """Draw items, inputs and layers: each matrix, gate by gate, uniform to `sqrt(6 / (rows + columns))`."""
        dim = int(shape.n_units[-1])
        items = np.zeros((n_items, padded(dim + 1)), np.float32)
        _draw(rng, items[:, :dim])
        inputs = np.zeros((n_items if shape.of_item else 0, padded(shape.of_item)), np.float32)
        blocks = 3 if self.config.embedding == "none" else 1
        for block in np.split(inputs[:, : shape.of_item], blocks, axis=1):
            _draw(rng, block)
        cells = np.zeros((1, sum(map(size_of, shape.n_inputs, shape.n_units))), np.float32)
        for layer, (n_inputs, n_units) in enumerate(zip(shape.n_inputs, shape.n_units, strict=True)):
            w, u, _ = weights_of(cells[0], layer, shape.n_inputs, shape.n_units)
            for matrix, width in ((w, n_inputs), (u, n_units)):
                for block in np.split(matrix[:, :width], 3):
                    _draw(rng, block)
        return self._moved(items), self._moved(inputs), self._moved(cells)

    def _moved(self, values: NDArray[np.float32]) -> Moved:
        rows = len(values) if self.config.momentum else 0
        return Moved(values, np.zeros_like(values), np.zeros((rows, values.shape[1]), np.float32))

    def _rules(self) -> Rules:
        settings = self.config
        return Rules(
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            momentum=settings.momentum,
            dropout_embed=settings.dropout_embed,
            dropout_hidden=settings.dropout_hidden,
            embedding=EMBEDDINGS[settings.embedding],
            loss=LOSSES[settings.loss],
            bpreg=settings.bpreg,
            activation=ACTIVATIONS[settings.activation],
            elu=settings.elu,
            reset_after=settings.reset_gate == "after",
        )

    def _sampling(self, support: NDArray[np.float64]) -> Sampling:
        """Prepare the draws, and the weights `e^-correction` of columns."""
        settings = self.config
        known = support > 0
        drawn = np.where(known, np.maximum(support, 1) ** settings.sample_alpha, 0)
        if settings.logq == "exact":
            expected = settings.batch_size * support / support.sum() + settings.n_sample * drawn / drawn.sum()
            of_target = of_sample = 1 / np.where(known, expected, 1)
        else:
            of_target = np.maximum(support, 1) ** -settings.logq
            of_sample = of_target**settings.sample_alpha
        stay, other = alias_table(drawn)
        return Sampling(
            stay, other, settings.n_sample, of_target.astype(np.float32), of_sample.astype(np.float32)
        )  # fmt: skip

    def _keep(
        self,
        items: NDArray[np.float32],
        inputs: NDArray[np.float32],
        cells: NDArray[np.float32],
        support: NDArray[np.float64],
    ) -> None:
        """Lay out what was learnt as answers need it."""
        dim, shape = self.config.layers[-1], self._shape()
        self.items_ = np.empty((len(items), dim + 2), np.float32)
        self.items_[:, :-1] = items[:, : dim + 1]
        self.items_[support == 0, -2] = _NEVER
        self.items_[:, -1] = np.log1p(support)
        self.inputs_ = inputs[:, : shape.of_item].copy()
        self.cells_ = cells[0].copy()

    def _validated(self, validation: Iterable[Cases]) -> float:
        """Return MRR@20, the mean over targets; ties count half."""
        found = []
        for cases in validation:
            counts = self.rank(cases).counts
            place = np.where(counts.equal > 0, 1 + counts.greater + (counts.equal - 1) / 2, np.inf)
            found.append(np.where(place <= _CUTOFF, 1 / place, 0.0))
        return float(np.mean(np.concatenate(found)))

    # -- answering ------------------------------------------------------------------------------

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> DotScores:
        starts, stops = histories.event_offsets[:-1], histories.event_offsets[1:]
        if self.config.reads == "session":
            starts, stops = histories.last_sessions
        queries, lengths = np.zeros((len(histories), self.items_.shape[1]), np.float32), stops - starts
        if np.count_nonzero(lengths) == len(lengths):
            queries[:, :-2] = self._states(histories.items, starts, lengths)
            queries[:, -2] = 1
        else:
            some = lengths > 0
            queries[some, :-2] = self._states(histories.items, starts[some], lengths[some])
            queries[some, -2] = 1
            queries[~some, -1] = 1
        return DotScores(queries, self.items_)

    def _states(
        self, items: NDArray[np.int32], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the state of the last layer after each row of events, `(B, H)`; no row is empty."""
        if len(items) <= _EVENTS:
            return self._walked(items, starts, lengths)
        ends = np.cumsum(lengths)
        parts, first = [np.zeros((0, self.config.layers[-1]), np.float32)], 0
        while first < len(lengths):  # so many rows that their gates fit in memory
            some = _EVENTS + (ends[first - 1] if first else 0)
            last = max(first + 1, int(np.searchsorted(ends, some, side="right")))
            parts.append(self._walked(items, starts[first:last], lengths[first:last]))
            first = last
        return np.concatenate(parts)

    def _walked(
        self, items: NDArray[np.int32], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        ready = self._ready()
        begins = np.zeros((len(starts), ready.widths[-1]), np.float32)  # the states of all layers, side by side
        names, known = [], {}
        if len(starts) <= _FEW:  # as a server asks
            starts, lengths = starts.copy(), lengths.copy()
            for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
                names.append(items[start : start + length].tobytes())
                known[row] = ready.states.get(names[row])
                before = ready.states.pop(names[row][: -items.itemsize], None)
                if known[row] is not None or before is not None:  # only the last event is new, or not even that
                    starts[row], lengths[row] = start + length - 1, 1
                    begins[row] = 0 if before is None else before
        offsets, codes = laid_end_to_end(items, starts, lengths)
        x, ends = ready.reader.rows(codes), begins
        for (inputs, u, bias), (a, z) in zip(ready.layers, itertools.pairwise(ready.widths), strict=True):
            gates = x if inputs is None else x @ inputs
            x = walk(gates, offsets, begins[:, a:z].copy(), u, bias, self.config.reset_gate == "after")
            ends[:, a:z] = x[offsets[1:] - 1]
        for row, name in enumerate(names):
            state = known[row]
            if state is not None:
                ends[row] = state
            ready.remember(name, ends[row].copy())
        last: NDArray[np.float32] = ends[:, ready.widths[-2] :]
        return last

    def _ready(self) -> "_Ready":
        """Return what answers need beside what was learnt: found out once for it."""
        known = self._found_out
        if known is None or known.cells is not self.cells_ or known.items is not self.items_:
            shape = self._shape()
            reader = RowReader(self.inputs_ if shape.of_item else self.items_[:, :-2])
            layers: list[_Layer] = []
            for layer, n_inputs in enumerate(shape.n_inputs.tolist()):
                w, u, bias = weights_of(self.cells_, layer, shape.n_inputs, shape.n_units)
                layers.append((w[:, :n_inputs].T if n_inputs else None, u, bias))
            widths = offsets_of(shape.n_units).tolist()
            known = self._found_out = _Ready(self.cells_, self.items_, reader, layers, widths, {})
        return known

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Tiny networks, one for each kind of embedding."""
        small = {"layers": (12,), "batch_size": 4, "n_sample": 8, "epochs": 25, "learning_rate": 0.2}
        return [
            small,
            {**small, "embedding": "separate", "embedding_dim": 6, "layers": (8, 12), "reset_gate": "after"},
            {**small, "embedding": "none", "loss": "bpr-max", "activation": "elu", "momentum": 0.2, "reads": "history"},
        ]


def _draw(rng: np.random.Generator, matrix: NDArray[np.float32]) -> None:
    """Fill a matrix, row by row; by blocks, for what is drawn is twice as wide as what is kept."""
    bound = math.sqrt(6 / max(sum(matrix.shape), 1))
    for start in range(0, len(matrix), _EVENTS):
        block = matrix[start : start + _EVENTS]
        block[:] = rng.uniform(-bound, bound, block.shape)
