"""Recommender: the one contract of all models."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, final, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextsession.artifacts import write_model
from nextsession.config import Runtime, Settings
from nextsession.data.cases import Cases
from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Id, Vocabulary
from nextsession.errors import DataError, ModelError, NotFittedError
from nextsession.progress import Progress, silent
from nextsession.scores import BLOCK_BYTES, Limits, RankCounts, Scores, Targets, TopK

C = TypeVar("C", bound=Settings)

Exclude = Literal["nothing", "session", "history"]
"""Which items a list leaves out: none, those of the last session, those of the whole history."""


@dataclass(frozen=True, eq=False)
class Recommendations:
    """Ranked items for each history; short lists end in `-1` with score `-inf`.

    Iterating gives the ids of each list.
    """

    items: NDArray[np.int32]  # (B, k) codes, best first
    scores: NDArray[np.float32]  # (B, k) never rising
    vocabulary: Vocabulary

    def __len__(self) -> int:
        """Return the number of lists."""
        return len(self.items)

    def __iter__(self) -> Iterator[list[Id]]:
        """Give the ids of each list, best first."""
        for row in self.items:
            yield self.vocabulary.decode(row[row >= 0]).tolist()


@dataclass(frozen=True, eq=False)
class Ranked:
    """What an evaluation needs of the answers to one block of cases."""

    counts: RankCounts  # (T,) each, in the order of the targets
    known: NDArray[np.bool_]  # (T,) is the target in the model's vocabulary?
    barred: NDArray[np.bool_]  # (T,) was the target left out by `exclude`?
    top: TopK  # (Q, k) codes of the model's vocabulary
    ignored_scores: NDArray[np.float32]  # (ignored,) -inf where there is none
    target_scores: NDArray[np.float32]  # (T,)


class Recommender(ABC, Generic[C]):
    """Learns from a log, then ranks items for histories.

    To write a model, subclass this in `nextsession/models/<name>.py`, give it a `Settings` class,
    and implement `_fit` and `_score`.  All else (validation, lists, ranks, exclusion, saving, the
    command line, the documentation page, the contract tests and the benchmark row) is derived.

    What `_fit` learns is stored in attributes that end in an underscore: arrays (saved as they
    are), and nothing else unless `_arrays` and `_restore` say how.
    """

    name: ClassVar[str]
    """Equal to the name of the module."""
    reference: ClassVar[str] = ""
    """The paper that describes the model."""
    ordered: ClassVar[bool] = True
    """Can the order of events change the answer?"""
    predicts: ClassVar[Literal["next-item", "next-session"]] = "next-item"
    """What the model was made for; every model answers both questions."""
    stochastic: ClassVar[bool] = False
    """Does `fit` draw random numbers?"""
    reads_clock: ClassVar[bool] = False
    """Can the instant of the question change the answer?  Tables say so."""
    reads_ignored: ClassVar[bool] = False
    """Is the model given events with label 0 (shown and ignored)?  Others see wanted events only."""
    by_recipe: ClassVar[bool] = False
    """Does it learn for as long as it is told?  Comparisons of every model leave it to recipes that name it."""
    exemptions: ClassVar[Mapping[str, str]] = {}
    """Promises of the contract that the model does not keep, each with the reason."""

    settings_class: ClassVar[type[Settings]]
    config: C
    vocabulary_: Vocabulary
    trained_until_: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find the settings class in `Recommender[ThatClass]`."""
        super().__init_subclass__(**kwargs)
        for base in vars(cls).get("__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type) and issubclass(argument, Settings):
                    cls.settings_class = argument

    def __init__(self, config: C | None = None, /, **settings: Any) -> None:
        """Take a ready config, or settings by name: `Markov(order=2)`.

        Raises:
            ConfigError: A setting is unknown or out of range; the message lists what exists.
        """
        if config is None:
            config = self.settings_class.read(settings, self.name)  # type: ignore[assignment]
        assert config is not None
        self.config = config

    def __repr__(self) -> str:
        """Show the name and the settings that are not the defaults."""
        changed = self.config.model_dump(exclude_defaults=True)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in changed.items())})"

    # -- learning -------------------------------------------------------------------------------

    @final
    def fit(
        self,
        log: SessionLog,
        *,
        validation: Iterable[Cases] = (),
        runtime: Runtime | None = None,
        progress: Progress = silent,
    ) -> Self:
        """Learn from `log` alone, forgetting whatever was learnt before; if it fails nothing is learnt.

        Args:
            log: Wanted events train every model; ignored ones only those that read them.
            validation: Questions for models that stop early; others do not look.
            runtime: The seed, 0 by default; and for models that take long the device and where to keep checkpoints.
            progress: Told how far learning has come, by models that take long.

        Raises:
            DataError: The log has no wanted event.
        """
        seen = log if self.reads_ignored else log.positives()
        if not np.any(seen.labels == 1):
            raise DataError(f"{self.name} cannot learn from a log without a single wanted event.")
        self._forget()
        self.vocabulary_ = log.vocabulary
        self.trained_until_ = int(log.times.max()) + 1
        self._validation, self._progress = validation, progress
        try:
            self._fit(seen, runtime or Runtime())
        except BaseException:
            self._forget()
            raise
        finally:
            del self._validation, self._progress
        return self

    @property
    def can_update(self) -> bool:
        """Can the model learn on, from later events?"""
        return type(self)._update is not Recommender._update

    @property
    def looks_back(self) -> bool:
        """Does what the model is told by `update` count only where it happened before the instant of the question?"""
        return type(self).reads_clock

    @final
    def update(self, log: SessionLog, *, runtime: Runtime | None = None) -> Self:
        """Learn from later events too; new items are appended to the vocabulary, old codes stay.

        `update(empty)` changes nothing, afterwards every item wanted in either log is known, and if
        it fails the model answers as before.

        Raises:
            NotFittedError: The model has not learnt anything yet.
            ModelError: The model cannot learn on (`can_update` is False): fit it again.
        """
        self._check_fitted()
        if not self.can_update:
            raise ModelError(f"{self.name} cannot learn on from later events; fit it again on the whole log.")
        seen = log if self.reads_ignored else log.positives()
        if seen.n_events == 0:
            return self
        seen, before = seen.compact(), dict(vars(self))
        self.vocabulary_ = self.vocabulary_.extend(seen.vocabulary.ids)
        self.trained_until_ = max(self.trained_until_, int(seen.times.max()) + 1)
        try:
            self._update(seen.recode(self.vocabulary_), runtime or Runtime())
        except BaseException:
            self._forget()
            vars(self).update(before)
            raise
        return self

    # -- answering ------------------------------------------------------------------------------

    @final
    def recommend(
        self,
        histories: SessionLog,
        k: int = 20,
        *,
        asked_at: ArrayLike | None = None,
        exclude: Exclude = "nothing",
        candidates: ArrayLike | None = None,
    ) -> Recommendations:
        """Rank the `k` likeliest next items of every history.

        Args:
            histories: One row a question; items unknown to the model are ignored.
            k: Length of each list; lists are shorter when fewer items can be scored.
            asked_at: The instant of each question in ms, `(B,)` or one for all; by default just
                after the last event of the history, or of what was learnt if that ended later.
            exclude: Leave out the wanted items of the last session, or of the whole history.
            candidates: Ids to choose among; all items the model knows by default.

        Returns:
            Lists in the order of `histories`; ties as in `nextsession.scores.tie_key`.

        Raises:
            NotFittedError: The model has not learnt anything yet.
            DataError: `k` is below 1, `exclude` is none of the three, or an instant lies before an
                event of its history.
        """
        self._check_fitted()
        if k < 1:
            raise DataError(f"k must be at least 1, got {k}.")
        allowed = None
        if candidates is not None:
            codes = self.vocabulary_.encode(candidates)
            allowed = np.zeros(len(self.vocabulary_), np.bool_)
            allowed[codes[codes >= 0]] = True
        parts = [
            scores.top(k, Limits(limits.offsets, limits.barred, allowed))
            for _, scores, limits in self._slices(histories, self._instants(histories, asked_at), exclude)
        ]
        width = min(k, len(self.vocabulary_))
        items = np.concatenate([p.items for p in parts]) if parts else np.zeros((0, width), np.int32)
        values = np.concatenate([p.scores for p in parts]) if parts else np.zeros((0, width), np.float32)
        return Recommendations(items, values, self.vocabulary_)

    @final
    def rank(self, cases: Cases, *, exclude: Exclude = "nothing", k: int = 0) -> Ranked:
        """Count, for every target of the cases, the items that beat or equal it; also list the best `k`.

        A target that is unknown to the model or left out by `exclude` is never found.
        """
        self._check_fitted()
        codes = self.vocabulary_.translate(cases.histories.vocabulary)
        targets = Targets(cases.target_offsets, codes[cases.targets] if len(codes) else cases.targets)
        ignored = Targets(cases.ignored_offsets, codes[cases.ignored] if len(codes) else cases.ignored)
        barred = np.zeros(len(targets.items), np.bool_)
        tops, greater, equal, slate, own = [], [], [], [], []
        for rows, scores, limits in self._slices(cases.histories, cases.asked_at, exclude):
            part = targets.rows(rows.start, rows.stop)
            if len(ignored.items):
                slate.append(scores.at(ignored.rows(rows.start, rows.stop)))
                own.append(scores.at(part))
            top, counts = scores.answer(k, part, limits)
            tops.append(top)
            greater.append(counts.greater)
            equal.append(counts.equal)
            if exclude != "nothing":
                a, z = cases.target_offsets[rows.start], cases.target_offsets[rows.stop]
                barred[a:z] = _among(part, limits, len(self.vocabulary_))
        width = min(k, len(self.vocabulary_))
        empty, nothing = np.zeros(0, np.int64), np.full(len(targets.items), -np.inf, np.float32)
        return Ranked(
            RankCounts(np.concatenate([empty, *greater]), np.concatenate([empty, *equal])),
            targets.items >= 0,
            barred,
            TopK(
                np.concatenate([np.zeros((0, width), np.int32), *(t.items for t in tops)]),
                np.concatenate([np.zeros((0, width), np.float32), *(t.scores for t in tops)]),
            ),
            np.concatenate([np.zeros(0, np.float32), *slate]),
            np.concatenate(own) if own else nothing,
        )

    @final
    def scores(self, histories: SessionLog, *, asked_at: ArrayLike | None = None) -> Scores:
        """Return the scores of all items for the histories, in the form the model produces them."""
        self._check_fitted()
        instants = self._instants(histories, asked_at)
        return self._checked(self._score(self._seen(histories), instants), len(histories))

    # -- keeping --------------------------------------------------------------------------------

    @final
    def save(self, path: str | Path, *, notes: Mapping[str, Any] | None = None) -> None:
        """Write the model as a directory of plain arrays; `notes` go into its manifest.

        Raises:
            NotFittedError: The model has not learnt anything yet.
            ArtifactError: Something that is no saved model stands at `path`.
        """
        self._check_fitted()
        manifest = {
            "model": self.name,
            "config": self.config.model_dump(mode="json"),
            "trained_until": self.trained_until_,
            "versions": {"nextsession": version("nextsession"), "numpy": np.__version__},
            "notes": dict(notes or {}),
        }
        write_model(Path(path), manifest, self._arrays(), self.vocabulary_)

    # -- what models implement ------------------------------------------------------------------

    @property
    def learning_curve(self) -> dict[str, list[float | None]]:
        """How learning went, epoch by epoch: columns such as `epoch`, `loss` and the metric of the validation.

        Empty for models that learn in one pass.
        """
        return {}

    @abstractmethod
    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        """Learn from a log with at least one wanted event; store what is learnt in attributes ending in `_`."""

    @abstractmethod
    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> Scores:
        """Score the items for every history: `DenseScores`, `SparseScores` or `DotScores`, in fresh arrays.

        `histories` are in the codes of `vocabulary_`, without an item table; rows may be empty.
        `asked_at` is `(B,)` ms, not earlier than any event of its row.
        """

    def _update(self, log: SessionLog, runtime: Runtime) -> None:
        """Learn from later events, already in the codes of the extended vocabulary, into fresh arrays."""
        raise ModelError(f"{self.name} cannot learn on.")

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was learnt, as arrays by name."""
        own = {a: v for a, v in vars(self).items() if a.endswith("_") and a not in ("vocabulary_", "trained_until_")}
        for attribute, value in own.items():
            if not isinstance(value, np.ndarray):
                raise ModelError(f"{self.name}.{attribute} is no array; say in _arrays and _restore how to keep it.")
        return own

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take back what `_arrays` gave."""
        for attribute, value in arrays.items():
            setattr(self, attribute, value)

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Return settings small enough for the contract tests, one dict a variant worth testing."""
        return [{}]

    # -- inside ---------------------------------------------------------------------------------

    def _forget(self) -> None:
        for attribute in [a for a in vars(self) if a.endswith("_")]:
            delattr(self, attribute)

    def _check_fitted(self) -> None:
        if not hasattr(self, "vocabulary_"):
            raise NotFittedError(f"This {self.name} has not learnt anything yet: call fit(log), or load a saved model.")

    def _seen(self, histories: SessionLog) -> SessionLog:
        seen = histories if self.reads_ignored else histories.positives()
        if seen.item_table is not None:
            seen = replace(seen, item_table=None)  # to recode it would cost as much as many answers
        return seen.recode(self.vocabulary_)

    def _instants(self, histories: SessionLog, asked_at: ArrayLike | None) -> NDArray[np.int64]:
        latest = histories.last_times
        if asked_at is None:
            return np.maximum(latest, self.trained_until_ - 1) + 1
        instants = np.asarray(asked_at, dtype=np.int64)
        if instants.shape != latest.shape:
            instants = np.broadcast_to(instants, len(histories))
        if (instants < latest).any():
            row = int(np.argmax(instants < latest))
            raise DataError(f"Question {row} is asked at {instants[row]}, before its last event at {latest[row]}.")
        return instants

    def _slices(
        self, histories: SessionLog, asked_at: NDArray[np.int64], exclude: Exclude
    ) -> Iterator[tuple[range, Scores, Limits]]:
        """Work through the questions in slices whose scores fit in memory."""
        if exclude not in get_args(Exclude):
            raise DataError(f"exclude must be one of {', '.join(get_args(Exclude))}; got {exclude!r}.")
        seen, limits = self._seen(histories), _limits(histories, exclude, self.vocabulary_)
        step = max(1, min(4096, BLOCK_BYTES // (4 * max(1, len(self.vocabulary_)))))
        for start in range(0, len(seen), step):
            stop = min(start + step, len(seen))
            part = seen if (start, stop) == (0, len(seen)) else seen.rows(start, stop)
            scores = self._checked(self._score(part, asked_at[start:stop]), stop - start)
            yield range(start, stop), scores, limits.rows(start, stop)

    def _checked(self, scores: Scores, n_questions: int) -> Scores:
        if len(scores) != n_questions or scores.n_items != len(self.vocabulary_):
            raise ModelError(
                f"{self.name} scored {len(scores)} questions x {scores.n_items} items; "
                f"there are {n_questions} x {len(self.vocabulary_)}."
            )
        return scores


def _limits(histories: SessionLog, exclude: Exclude, vocabulary: Vocabulary) -> Limits:
    """Bar the wanted items of the histories as they were given: what a model cannot read still ends a session."""
    if exclude == "nothing" or histories.n_events == 0:
        return Limits.none(len(histories))
    codes = vocabulary.translate(histories.vocabulary)[histories.items]
    rows = histories.user_of_session[histories.session_of_event]
    chosen = (codes >= 0) & (histories.labels == 1)
    if exclude == "session":
        chosen &= histories.session_of_event == histories.user_offsets[1:][rows] - 1
    return Limits(offsets_of(np.bincount(rows[chosen], minlength=len(histories))), codes[chosen])


def _among(targets: Targets, limits: Limits, n_items: int) -> NDArray[np.bool_]:
    """Say which targets are barred for their own question."""

    def keys(offsets: NDArray[np.int64], items: NDArray[np.int32]) -> NDArray[np.int64]:
        rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        return rows * n_items + items

    wanted = keys(targets.offsets, targets.items)
    return np.isin(wanted, keys(limits.offsets, limits.barred)) & (targets.items >= 0)
