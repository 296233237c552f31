"""Evaluation: how good a model's answers are, in one pass over the questions.

The pass keeps, for every target, how many items beat it, and for every question a few small
columns; `Report` works everything else out of them.

All items that the model knows are candidates.  Targets it does not know, and targets that `exclude`
bars, are misses; their shares are reported.  Questions without a target are skipped and counted.
"""

import copy
import hashlib
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.cases import Cases, Questions
from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ConfigError, DataError
from nextsession.metrics import (
    LIST_METRICS,
    Floats,
    ItemSpace,
    coverage,
    gini,
    list_means,
    novelty_of,
    popularity_of,
    slate_counts,
)
from nextsession.outcomes import POPULARITY_GROUPS, EvaluationSettings, Report
from nextsession.progress import Progress, silent
from nextsession.recommender import Ranked, Recommender
from nextsession.scores import RankCounts

__all__ = ["EvaluationSettings", "Report", "evaluate"]


def evaluate(
    model: Recommender[Any],
    questions: Questions,
    settings: EvaluationSettings | None = None,
    *,
    train: SessionLog | None = None,
    progress: Progress = silent,
) -> Report:
    """Ask a model all questions and measure its answers.

    A model that can learn on is told the news that blocks carry, on a copy: `model` stays as it is.

    Args:
        model: A fitted model.
        questions: Such as `Split.test`.
        settings: Metrics, lengths of lists and rules.
        train: What the model learnt from, for everything about popularity; left out without it are the
            metrics `popularity` and `novelty`, the table by popularity and the calibration.  Its item
            table gives `diversity`.
        progress: Told of the questions answered.

    Raises:
        ModelError: A score is NaN.
        DataError: There is no question with a target.
        ConfigError: `diversity` is asked for and there are no item features.
    """
    settings = settings or EvaluationSettings()
    pass_ = _Pass(model, settings, train)
    total = len(questions) if hasattr(questions, "__len__") else None
    for cases in questions():
        pass_.ask(cases)
        progress(f"evaluate {model.name}", pass_.asked, total)
    return pass_.report()


class _Pass:
    """One pass over the questions: asks, and keeps the columns of a report."""

    def __init__(self, model: Recommender[Any], settings: EvaluationSettings, train: SessionLog | None) -> None:
        self.model, self.settings = model, settings
        self.own = False  # is `model` a copy that may learn on?
        self.asked = 0
        self.skipped = 0
        self.answering, self.updating = 0.0, 0.0
        self.digest = hashlib.blake2b(digest_size=8)
        self.questions: list[dict[str, NDArray[Any]]] = []
        self.targets: list[dict[str, NDArray[Any]]] = []
        self.training = _Training(train) if train is not None else None
        self.lists = _Lists(settings, self.training) if settings.list_length else None

    def ask(self, cases: Cases) -> None:
        """Tell the model the news, ask it a block and keep what comes of it."""
        for told in (cases.news, cases.held if self.model.looks_back else None):
            if told is not None and told.n_events and self.model.can_update:
                self._tell(told)
        started = time.process_time()
        ranked = self.model.rank(cases, exclude=self.settings.exclude, k=self.settings.list_length)
        self.answering += time.process_time() - started
        self.asked += len(cases)
        for column in (cases.asked_at, cases.targets, cases.target_offsets, cases.groups):
            self.digest.update(np.ascontiguousarray(column).data)
        questions, targets = self._columns(cases, ranked)
        kept = questions["n_targets"] > 0
        if not kept.all():
            self.skipped += int(np.count_nonzero(~kept))
            questions = {name: column[kept] for name, column in questions.items()}
        self.questions.append(questions)
        self.targets.append(targets)

    def report(self) -> Report:
        """Put the columns of all blocks together."""
        questions, targets = _joined(self.questions), _joined(self.targets)
        if not questions or not len(questions["n_targets"]):
            raise DataError(f"There is no question with a target among {self.asked}; nothing can be measured.")
        offsets = offsets_of(questions.pop("n_targets"))
        if np.all(np.isnan(questions["slate_auc"])):
            del questions["slate_auc"], targets["slate_greater"], targets["slate_equal"]
        whole, listed = self.lists.whole(self.model.vocabulary_) if self.lists else ({}, [])
        calibration = {}
        if self.training is not None:
            group = targets["popularity"]
            calibration = {
                "targets": [float(np.mean(group == g)) for g in range(POPULARITY_GROUPS)],
                "deciles": listed,
            }
        facts = {
            "skipped": self.skipped,
            "answer_cpu_ms": 1000 * self.answering / max(1, self.asked),
            "update_cpu_s": self.updating,
            "updates": self.own,
            "reads_clock": type(self.model).reads_clock,
        }
        return Report(
            self.model.name,
            self.settings,
            self.digest.hexdigest(),
            offsets,
            targets,
            questions,
            whole,
            calibration,
            facts,
        )

    def _tell(self, news: SessionLog) -> None:
        if not self.own:
            self.model, self.own = copy.deepcopy(self.model), True
        started = time.process_time()
        self.model.update(news)
        self.updating += time.process_time() - started

    def _columns(self, cases: Cases, ranked: Ranked) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        histories = cases.histories
        inside, auc = self._slates(cases, ranked)
        questions: dict[str, NDArray[Any]] = {
            "n_targets": np.diff(cases.target_offsets),
            "groups": cases.groups,
            "positions": cases.positions,
            "events": np.diff(histories.event_offsets),
            "sessions": np.diff(histories.user_offsets),
            "slate_auc": auc,
        }
        if self.lists:
            questions |= self.lists.columns(ranked.top.items, self.model.vocabulary_)
        popularity = np.full(len(cases.targets), -1, np.int8)
        if self.training is not None:
            popularity = self.training.groups(histories.vocabulary)[cases.targets]
        targets = {
            "greater": ranked.counts.greater.astype(np.int32),
            "equal": ranked.counts.equal.astype(np.int32),
            "known": ranked.known,
            "barred": ranked.barred,
            "repeat": _repeats(histories.event_offsets, histories.items, cases.target_offsets, cases.targets),
            "popularity": popularity,
            "slate_greater": inside.greater.astype(np.int32),
            "slate_equal": inside.equal.astype(np.int32),
        }
        return questions, targets

    def _slates(self, cases: Cases, ranked: Ranked) -> tuple[RankCounts, Floats]:
        if not self.settings.slates or len(cases.ignored) == 0:
            nothing = np.zeros(len(cases.targets), np.int64)
            return RankCounts(nothing, nothing), np.full(len(cases), np.nan)
        return slate_counts(ranked.target_scores, cases.target_offsets, ranked.ignored_scores, cases.ignored_offsets)


class _Training:
    """How often each item was wanted in training, in the codes of any vocabulary."""

    def __init__(self, log: SessionLog) -> None:
        self.vocabulary = log.vocabulary
        self.table = log.item_table
        wanted = log.items[log.labels == 1]
        self.events = np.bincount(wanted, minlength=log.n_items)
        self.group = _tenths(self.events)
        self._counts: tuple[Vocabulary, NDArray[np.int64]] | None = None
        self._groups: tuple[Vocabulary, NDArray[np.int8]] | None = None

    def counts(self, vocabulary: Vocabulary) -> NDArray[np.int64]:
        """Return the number of wanted events of each item; 0 if training never saw it."""
        if self._counts is None or self._counts[0] is not vocabulary:
            self._counts = vocabulary, np.append(self.events, 0)[self.vocabulary.translate(vocabulary)]
        return self._counts[1]

    def groups(self, vocabulary: Vocabulary) -> NDArray[np.int8]:
        """Return the group of popularity of each item, 0 the most popular; -1 if training never saw it."""
        if self._groups is None or self._groups[0] is not vocabulary:
            self._groups = vocabulary, np.append(self.group, np.int8(-1))[self.vocabulary.translate(vocabulary)]
        return self._groups[1]


class _Lists:
    """What is to be said about the lists."""

    def __init__(self, settings: EvaluationSettings, training: _Training | None) -> None:
        self.ks, self.names, self.training = settings.k, settings.metrics, training
        self.shown = np.zeros((len(self.ks), 0), np.int64)  # (K, V) lists that hold the item among their first k
        self.space = None
        if "diversity" in self.names:
            if training is None or training.table is None or not training.table.features:
                raise ConfigError(
                    "The metric 'diversity' compares side features of items, and the training log has none; leave it "
                    "out, or prepare the log with an item table."
                )
            self.space = ItemSpace.of(training.table)

    def columns(self, lists: NDArray[np.int32], vocabulary: Vocabulary) -> dict[str, NDArray[np.float32]]:
        """Count the items of the lists, `(Q, k)` codes of the model, and return the metrics of each list."""
        if self.shown.shape[1] < len(vocabulary):
            self.shown = np.pad(self.shown, ((0, 0), (0, len(vocabulary) - self.shown.shape[1])))
        before = 0
        for row, k in enumerate(self.ks):
            part = lists[:, before:k]
            self.shown[row:] += np.bincount(part[part >= 0], minlength=len(vocabulary))
            before = k
        found: dict[str, NDArray[np.float32]] = {}
        for name in LIST_METRICS:
            if name not in self.names or self.training is None:
                continue
            if self.space is not None and name == "diversity":
                codes = np.append(self.training.vocabulary.translate(vocabulary), -1)[lists]
                values = self.space.diversity(codes.astype(np.int32), self.ks)
            else:
                rule = popularity_of if name == "popularity" else novelty_of
                values = list_means(lists, rule(self.training.counts(vocabulary)), self.ks)
            found |= {f"{name}@{k}": values[:, i].astype(np.float32) for i, k in enumerate(self.ks)}
        return found

    def whole(self, vocabulary: Vocabulary) -> tuple[dict[str, float], list[float]]:
        """Return the metrics of all lists together, and the share of the listed items in each group of popularity."""
        rules = {"coverage": coverage, "gini": gini}
        found = {
            f"{name}@{k}": rules[name](self.shown[i])
            for name in self.names
            if name in rules
            for i, k in enumerate(self.ks)
        }
        if self.training is None:
            return found, []
        groups, longest = self.training.groups(vocabulary), self.shown[-1]
        total = max(1, int(longest.sum()))
        return found, [float(longest[groups == g].sum() / total) for g in range(POPULARITY_GROUPS)]


def _tenths(events: NDArray[np.int64]) -> NDArray[np.int8]:
    """Group items so that each group holds a tenth of the events, the most popular first; -1 without any."""
    order = np.argsort(-events, kind="stable")
    before = np.cumsum(events[order]) - events[order]
    group = np.empty(len(events), np.int8)
    group[order] = np.minimum(POPULARITY_GROUPS * before // max(1, int(events.sum())), POPULARITY_GROUPS - 1)
    group[events == 0] = -1
    return group


def _joined(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


@compiled
def _repeats(
    offsets: NDArray[np.int64], items: NDArray[np.int32], target_offsets: NDArray[np.int64], targets: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Say which targets are in their own history."""
    found = np.zeros(len(targets), np.bool_)
    for q in range(len(offsets) - 1):
        for t in range(target_offsets[q], target_offsets[q + 1]):
            for e in range(offsets[q], offsets[q + 1]):
                if items[e] == targets[t]:
                    found[t] = True
                    break
    return found
