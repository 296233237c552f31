"""NeuralRecommender: what all models that are trained by gradients have in common."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from nextsession.answering import Facts, queries_of, table_of
from nextsession.asking import AskedRows, MomentSettings, answers, history_of
from nextsession.config import Runtime
from nextsession.data.cases import Cases
from nextsession.data.items import ItemFeature
from nextsession.data.log import SessionLog
from nextsession.distributed import Processes, joined, local_rank, started_together
from nextsession.errors import ConfigError, DataError, suggestion
from nextsession.evaluation import EvaluationSettings, evaluate
from nextsession.habits import Habits
from nextsession.nn.augmentation import Variation, in_turn
from nextsession.nn.batches import Augmentation, Rows
from nextsession.nn.known import History
from nextsession.nn.losses import FullSoftmax, Loss, Sum
from nextsession.nn.moments import MomentExamples, MomentNetwork, grown, moment_loss
from nextsession.nn.negatives import ItemStatistics
from nextsession.nn.networks import Examples, Network
from nextsession.reading import Reading
from nextsession.recommender import Recommender
from nextsession.scores import DenseScores, DotScores, Scores
from nextsession.slices import Slices, Windows, slices
from nextsession.splits import fingerprint
from nextsession.training import enough_memory, start
from nextsession.training_facts import columns_key, questions_key, some_of
from nextsession.training_log import CURVE
from nextsession.training_run import RunSettings, TrainingRun


class NeuralSettings(RunSettings):
    """Settings of every neural model."""

    preset: str | None = None
    """A named recipe of the field: its settings take the place of the defaults, what is given beside it wins."""
    reads: Literal["session", "history"] = "history"
    """What is one row: each session by itself, or all that a person did."""
    max_length: int = Field(default=200, ge=1)
    """Newest events of a row that are read."""
    windows: Windows = "latest"
    """Of rows longer than that: train on the newest events, or on all in pieces; or on every beginning of every row."""
    augment: tuple[Variation, ...] = ()
    """How rows of training are varied at random in every step, in this order."""
    dim: int = Field(default=64, ge=1)
    """Width of the vectors."""
    features: tuple[str, ...] = ()
    """Side features of the items that are read beside them, by name; they need an item table with the log."""
    feature_dim: int = Field(default=16, ge=1)
    """Width of the vector of each feature."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the numbers set to 0 while training."""
    loss: Loss = FullSoftmax()
    """What training makes small."""
    moment: MomentSettings | None = None
    """What is known at the moment of asking beside the history: how often everybody wanted each item shortly before,
    and what the person had.  Training then puts questions one by one, each with its own history, and the loss is the
    softmax over all items."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Recipes by name."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("preset") is None:
            return values
        if values["preset"] not in cls.presets:
            raise ValueError(f"preset must be one of {', '.join(cls.presets) or 'none'}, got {values['preset']!r}")
        return {**cls.presets[values["preset"]], **values}

    def changed(self) -> dict[str, Any]:
        """Return the settings that are not the defaults; with a preset, those that are not its own either."""
        found, mine = super().changed(), self.model_dump()
        if self.preset is not None:
            own = type(self).model_validate({"preset": self.preset}).model_dump()
            found = {name: found.get(name, mine[name]) for name in mine if mine[name] != own[name]}
            found = {"preset": self.preset, **found}
        if "moment" in found and self.moment is not None:
            found["moment"] = self.moment.changed()
        if "loss" in found:
            found["loss"] = {"kind": self.loss.kind, **self.loss.model_dump(exclude_defaults=True)}
        return found

    @model_validator(mode="after")
    def _all_items_at_a_moment(self) -> "NeuralSettings":
        if self.moment is None:
            return self
        if self.loss.kind != "softmax" or self.sparse:
            raise ValueError("moment needs the loss of kind 'softmax' and sparse = false: all items are ranked then")
        if self.augment:
            raise ValueError("moment puts questions as they were asked: augment must be empty")
        return self

    @model_validator(mode="after")
    def _sampling_if_sparse(self) -> "NeuralSettings":
        losses = [part.loss for part in self.loss.parts] if isinstance(self.loss, Sum) else [self.loss]
        if self.sparse and any(isinstance(loss, FullSoftmax) for loss in losses):
            raise ValueError(
                "sparse = true needs a loss that samples, such as sampled_softmax; softmax moves all items"
            )
        return self


N = TypeVar("N", bound=NeuralSettings)


class NeuralRecommender(Recommender[N], Generic[N]):
    """Trains a network on the rows of a log and ranks items by the dot product of its queries with theirs.

    A model implements `_network`, and answers for the rest with its settings.  Questions whose
    history is empty (or of unknown items alone) are ranked by popularity in training.
    """

    stochastic: ClassVar[bool] = True
    by_recipe: ClassVar[bool] = True
    reads_actions: ClassVar[bool] = False
    """Does the network read kinds of events?"""
    least_events: ClassVar[int] = 2
    """Rows with fewer events teach nothing."""

    network_: Network
    history_: History | None
    """Everybody's events, if it is to be known what was wanted shortly before a question."""
    habits_: Habits | None
    """What everybody has again, if that is to be known."""
    popularity_: NDArray[np.float32]  # (V,) log(1 + wanted events in training)
    curve_: NDArray[np.float64]  # (epochs, columns) see CURVE; validation is NaN where there was none
    table_: NDArray[np.float32]  # (V, D + 2) vectors of the items, their bias, and their popularity
    facts_: Facts

    # -- what models implement ------------------------------------------------------------------

    @abstractmethod
    def _network(self, facts: Facts) -> Network:
        """Build the network; its weights are drawn from torch's default generator, which is seeded."""

    def _loss(self, examples: Examples, network: Network, statistics: ItemStatistics) -> Tensor:
        """Return the mean loss of the examples; by default that of `config.loss`."""
        return self.config.loss(examples, network.head, statistics)

    @property
    def _alpha(self) -> float:
        """The weight of the rank loss beside it, where it is known what was shown and ignored."""
        return 0.0

    def _augmentation(self) -> Augmentation | None:
        """Return how rows of training are varied; by default as `config.augment` says."""
        return in_turn(self.config.augment, self.least_events)

    @property
    def _reading(self) -> Reading:
        """What is read of histories."""
        return Reading(self.config.reads, self.config.max_length, actions=self.facts_.actions)

    @property
    def uncompiled(self) -> str:
        """Why the network cannot be written down to be served without torch; empty if it can."""
        return "" if self.config.moment is None else "it knows the moment, and scores every item with torch"

    # -- learning -------------------------------------------------------------------------------

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        device = device_of(runtime)
        counts = np.bincount(log.items[log.labels == 1], minlength=log.n_items).astype(np.float32)
        self.facts_ = Facts(log.n_items, log.action_names if self.reads_actions else (), self._features(log))
        self.popularity_ = np.log1p(counts)
        self.history_ = (
            None if self.config.moment is None else history_of(self.name, log, self.config.moment, runtime.seed)
        )
        self.habits_ = None
        rows = self._rows(log) if self.config.moment is None else self._questions(log, self.config.moment, runtime)
        with enough_memory(self.name, self.config):
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(runtime.seed)
                self.network_ = self._built().to(device)
            self._train(rows, ItemStatistics(torch.from_numpy(counts).to(device)), runtime, device, joined(device))
        self.network_.to("cpu").eval().requires_grad_(False)
        self._tabulate()

    def _features(self, log: SessionLog) -> dict[str, ItemFeature]:
        """Return the side features that the settings name, numeric ones in bins of the items with events here.

        Raises:
            ConfigError: The log has no such feature.
        """
        known = {} if log.item_table is None else log.item_table.features
        for name in self.config.features:
            if name not in known:
                raise ConfigError(
                    f"{self.name}: the items of this log have no feature {name!r}.{suggestion(name, known)} "
                    f"Features: {', '.join(known) or 'none'}."
                )
        seen = np.bincount(log.items, minlength=log.n_items) > 0
        return {name: known[name].binned_by(seen) for name in self.config.features}

    def _rows(self, log: SessionLog) -> Rows:
        found = self._taught(log).longer_than(self.least_events - 1)
        return Rows(log, found, None, self._reading.kinds(log), self._augmentation())

    def _built(self) -> Network:
        """Build the network, with what meets its queries beside the items."""
        network, moment = self._network(self.facts_), self.config.moment
        if moment is None:
            return network
        n_features = 0 if self.history_ is None else self.history_.n_features(len(moment.windows))
        return MomentNetwork(
            network,
            n_features,
            repeat=moment.repeats,
            habits=moment.habits,
            width=moment.width,
            hidden=moment.hidden,
            audience=bool(moment.audience),
            cold=moment.cold,
        )

    def _questions(self, log: SessionLog, moment: MomentSettings, runtime: Runtime) -> AskedRows:
        most = self.config.max_length
        found = AskedRows.of(
            log, moment, self.history_, most, runtime.seed, seen=self._reading.slices, kinds=self._reading.kinds
        )  # fmt: skip
        self.habits_ = found.habits
        return found

    def _taught(self, log: SessionLog) -> Slices:
        """Return the rows that are learnt from, targets included."""
        settings = self.config
        offsets = log.session_offsets if settings.reads == "session" else log.event_offsets
        length = settings.max_length + 1 if self.least_events > 1 else settings.max_length  # one is the target
        return slices(offsets, settings.windows, length)

    def _train(
        self,
        rows: Rows | AskedRows,
        statistics: ItemStatistics,
        runtime: Runtime,
        device: torch.device,
        processes: Processes,
    ) -> None:
        if processes.size > 1 and self.config.moment is not None:
            raise ConfigError(
                f"{self.name}: moment is learnt by one process, and there are {processes.size}; leave torchrun out."
            )
        questions = some_of(self._validation, self.config.validation_questions, runtime.seed)
        facts: dict[str, Any] = {}
        if runtime.checkpoints is not None:
            facts = {
                "data": fingerprint(rows.log),
                "columns": columns_key(rows.log, rows.actions, self.facts_.actions, self.facts_.features),
                "questions": [questions_key(cases) for cases in questions],
            }
        run = TrainingRun(
            self.name,
            self.config,
            runtime,
            device,
            processes,
            facts,
            (lambda: self._validated(questions)) if questions else None,
            self._progress,
        )
        state = start(self.network_, self.config)
        self.curve_ = run.train(state, rows, lambda examples, network: self._objective(examples, network, statistics))

    def _objective(self, examples: Examples, network: Network, statistics: ItemStatistics) -> Tensor:
        if isinstance(examples, MomentExamples) and isinstance(network, MomentNetwork):
            assert isinstance(self.config.loss, FullSoftmax)
            return moment_loss(examples, network, self._alpha, self.config.loss.label_smoothing)
        return self._loss(examples, network, statistics)

    def _validated(self, questions: list[Cases]) -> float:
        metric, _, k = self.config.validation_metric.partition("@")
        settings = EvaluationSettings(
            metrics=(metric,), k=(int(k),), exclude=self.config.validation_exclude, bootstrap=0, slates=False
        )
        self._tabulate()
        report = evaluate(self, lambda: iter(questions), settings)
        values = report.values(self.config.validation_metric)
        return float(np.nanmean(values)) if np.any(np.isfinite(values)) else math.nan

    @property
    def learning_curve(self) -> dict[str, list[float | None]]:
        """The loss of each epoch, its CPU-seconds of training, and the score of the validation if there was one."""
        columns = ("epoch", "loss", "cpu_seconds", "validation")
        epochs, losses, seconds, scores = (self.curve_[:, CURVE.index(x)].tolist() for x in columns)
        found: dict[str, list[float | None]] = {"epoch": epochs, "loss": losses, "cpu_seconds": seconds}
        if not np.all(np.isnan(scores)):
            found[self.config.validation_metric] = [None if math.isnan(x) else x for x in scores]
        return found

    # -- answering ------------------------------------------------------------------------------

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> Scores:
        moment, network, reading = self.config.moment, self.network_, self._reading
        histories = reading.histories(self.name, histories)
        found = queries_of(network, Rows(histories, reading.slices(histories), asked_at, reading.kinds(histories)))
        if moment is not None and isinstance(network, MomentNetwork):
            asked = torch.zeros(len(histories), network.head.table()[0].shape[1])
            for some, batch_queries in found:
                asked[some] = torch.from_numpy(batch_queries)
            if self.history_ is not None and not histories.timed and histories.n_events:
                raise DataError(
                    f"This {self.name} knows the moment of asking, and these histories hold only the order of their "
                    "events. Give them times, or fit a model with moment.windows = []."
                )
            most = self.config.max_length
            never = self.popularity_ == 0
            return DenseScores(
                answers(network, moment, self.history_, histories, asked_at, asked, never, most, self.habits_)
            )
        queries = np.zeros((len(histories), self.table_.shape[1]), np.float32)
        for some, batch_queries in found:
            queries[some, :-2] = batch_queries
            queries[some, -2] = 1
        queries[:, -1] = np.all(queries == 0, axis=1)
        return DotScores(queries, self.table_)

    @property
    def can_update(self) -> bool:
        """Can the model be told what everybody did since?  It counts that, and learns no new vectors from it."""
        return bool(self.config.moment is not None and self.config.moment.windows and not self.config.features)

    @property
    def looks_back(self) -> bool:
        """Does what the model is told by `update` count only where it happened before the instant of the question?"""
        return self.can_update

    def _update(self, log: SessionLog, runtime: Runtime) -> None:
        assert self.history_ is not None
        assert isinstance(self.network_, MomentNetwork)
        n_items = len(self.vocabulary_)
        counts = np.bincount(log.items[log.labels == 1], minlength=n_items).astype(np.float32)
        counts[: len(self.popularity_)] += np.expm1(self.popularity_)
        self.popularity_ = np.log1p(counts)
        self.history_ = self.history_.joined(log)
        if n_items > self.facts_.n_items:
            self.network_ = grown(self.network_, n_items)
            self.habits_ = None if self.habits_ is None else self.habits_.extended(n_items)
            self.facts_ = replace(self.facts_, n_items=n_items)

    def _tabulate(self) -> None:
        """Lay out the vectors of the items as answers need them."""
        self.network_.eval()
        if self.config.moment is None:
            self.table_ = table_of(self.network_, self.popularity_)

    # -- keeping --------------------------------------------------------------------------------

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {f"network.{k}": v.detach().cpu().numpy() for k, v in self.network_.state_dict().items()}
        if self.history_ is not None:
            arrays |= self.history_.arrays()
        if self.habits_ is not None:
            arrays |= self.habits_.arrays()
        return {**arrays, **self.facts_.arrays(), "popularity": self.popularity_, "curve": self.curve_}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.popularity_, self.curve_ = arrays["popularity"], arrays["curve"]
        self.facts_ = Facts.restored(arrays, len(self.vocabulary_), self.config.features)
        self.history_ = History.restored(arrays, len(self.vocabulary_)) if "history/times" in arrays else None
        self.habits_ = Habits.restored(arrays)
        with torch.random.fork_rng(devices=[]):
            self.network_ = self._built()
        weights = {
            k.removeprefix("network."): torch.from_numpy(v.copy())
            for k, v in arrays.items()
            if k.startswith("network.")
        }
        self.network_.load_state_dict(weights)
        self.network_.eval().requires_grad_(False)
        self._tabulate()


def device_of(runtime: Runtime) -> torch.device:
    """Return where a network is trained.

    Raises:
        ConfigError: It is to be a GPU, and there is none.
    """
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("runtime: device = 'cuda', and torch finds no GPU; use 'auto' or 'cpu'.")
    if runtime.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank()) if started_together() else torch.device("cuda")
