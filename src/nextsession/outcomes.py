"""Outcomes: what came of asking a model, and everything that follows from it.

A `Report` holds small columns, one value a question or a target.  Means, intervals, tables by group
and differences between models are worked out from them, so none needs the model again.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from nextsession.bootstrap import Estimate, intervals
from nextsession.config import Settings
from nextsession.errors import ArtifactError, DataError
from nextsession.files import whole_file
from nextsession.metrics import LIST_METRICS, RANK_METRICS, WHOLE_METRICS, Floats, Ranks, Ties, check_names
from nextsession.recommender import Exclude
from nextsession.scores import RankCounts

LENGTHS = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, 2**62))
"""Groups of lengths in the tables, first and last of each."""

POPULARITY_GROUPS = 10


class EvaluationSettings(Settings):
    """What is measured, and by which rules."""

    metrics: tuple[str, ...] = ("ndcg", "recall", "mrr", "hitrate", "precision", "map", "coverage", "popularity")
    """Names of metrics, see `nextsession.metrics`; the first, at the first `k`, orders tables."""
    k: tuple[int, ...] = (10, 20)
    """Lengths of lists."""
    exclude: Exclude = "nothing"
    """Items that no list may hold: none, those of the last session known, those of the whole history."""
    ties: Ties = "median"
    """Where a target stands among items of the same score."""
    slates: bool = True
    """Rank inside what was shown as well, where the questions say what was shown and ignored."""
    bootstrap: int = Field(default=1000, ge=0)
    """How often users are drawn again for the intervals; 0: no intervals."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Share of the resamples inside an interval."""
    seed: int = Field(default=0, ge=0)
    """Of the resamples."""

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return check_names(names)

    @field_validator("k")
    @classmethod
    def _lengths(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if not lengths or min(lengths) < 1:
            raise ValueError("must be one or more lengths of at least 1")
        return tuple(sorted(set(lengths)))

    @property
    def list_length(self) -> int:
        """How many items of each list the metrics look at; 0 if none looks at lists."""
        return max(self.k) if {*self.metrics} & {*LIST_METRICS, *WHOLE_METRICS} else 0


@dataclass(frozen=True, eq=False)
class Report:
    """What a model made of some questions: `Q` of them, with `T` targets in all."""

    model: str
    settings: EvaluationSettings
    questions_key: str
    """The same for the same questions in the same order."""
    offsets: NDArray[np.int64]  # (Q+1,) into targets
    targets: Mapping[str, NDArray[Any]]
    """(T,) each: greater, equal, known, barred, repeat, popularity (group in training, -1 never seen), slate_*."""
    questions: Mapping[str, NDArray[Any]]
    """(Q,) each: groups, positions, events, sessions; metrics of lists such as `popularity@10`; slate_auc."""
    whole: Mapping[str, float]
    """Metrics of all lists together, such as `coverage@10`."""
    calibration: Mapping[str, list[float]]
    """Share of the targets, and of the listed items, in each group of popularity; empty without a training log."""
    facts: Mapping[str, Any]
    """skipped (questions without a target), answer_cpu_ms, update_cpu_s, reads_clock, updates."""

    def __len__(self) -> int:
        """Return the number of questions measured."""
        return len(self.offsets) - 1

    @cached_property
    def ranks(self) -> Ranks:
        """The ranks of the targets by the tie rule of the settings."""
        return Ranks.of(RankCounts(self.targets["greater"], self.targets["equal"]), self.offsets, self.settings.ties)

    @property
    def names(self) -> list[str]:
        """The names of all metrics that have a value a question: `ndcg@10`, `slate_auc`."""
        return [name for name, _ in self._columns()]

    def values(self, name: str) -> Floats:
        """Return a metric of every question, `(Q,)`; NaN where it has none.

        Raises:
            DataError: It was not measured.
        """
        for known, column in self._columns():
            if known == name:
                return column
        raise DataError(f"{name!r} was not measured; measured are {', '.join(self.names)}.")

    @cached_property
    def metrics(self) -> dict[str, Estimate]:
        """The mean of every metric with its interval; metrics of all lists together have an interval of no width."""
        found = self._intervals(self._columns())
        return found | {name: Estimate(value, value, value) for name, value in self.whole.items()}

    @cached_property
    def warm(self) -> dict[str, float]:
        """The means of the metrics of ranks over targets the model knows; questions without one are left out."""
        known = self.targets["known"]
        counts = np.add.reduceat(known.astype(np.int64), self.offsets[:-1]) if len(self) else np.zeros(0, np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts[counts > 0])])
        some = RankCounts(self.targets["greater"][known], self.targets["equal"][known])
        ranks = Ranks.of(some, offsets, self.settings.ties)
        return {name: _mean(column) for name, column in self._of_ranks(ranks)}

    @cached_property
    def breakdown(self) -> dict[str, list[dict[str, Any]]]:
        """Means of the metrics of ranks by group: `{group, n, metrics}`.

        `session_length` (events of the asked session that came before), `history_length` and
        `history_sessions` group questions.  `item_popularity` (each group holds a tenth of the
        training events, 1 the most popular items; `new` was never seen), `repeat` and `known` group
        targets, each taken as a question of its own.
        """
        lengths = {"session_length": "positions", "history_length": "events", "history_sessions": "sessions"}
        of_questions = {
            title: [(_span(a, z), (self.questions[column] >= a) & (self.questions[column] <= z)) for a, z in LENGTHS]
            for title, column in lengths.items()
        }
        group, repeat, known = (self.targets[name] for name in ("popularity", "repeat", "known"))
        of_targets = {
            "repeat": [("repeated", repeat), ("first time", ~repeat)],
            "known": [("known", known), ("unknown", ~known)],
        }
        if self.calibration:
            names = [(str(g + 1), group == g) for g in range(POPULARITY_GROUPS)]
            of_targets["item_popularity"] = [*names, ("new", group < 0)]
        return {
            **{title: self._by_group(self.ranks, groups) for title, groups in of_questions.items()},
            **{title: self._by_group(self.ranks.each(), groups) for title, groups in of_targets.items()},
        }

    def compare(self, other: "Report") -> dict[str, Estimate]:
        """Return how much better this model is than the other, by metric, as paired differences.

        An interval that does not hold 0 means that the difference would hardly come of other users.

        Raises:
            DataError: The two were asked different questions or measured by different rules.
        """
        if self.questions_key != other.questions_key:
            raise DataError(
                f"{self.model} and {other.model} were asked different questions: evaluate both on the same."
            )
        for rule in ("exclude", "ties", "k"):
            mine, theirs = getattr(self.settings, rule), getattr(other.settings, rule)
            if mine != theirs:
                raise DataError(f"{rule} must be the same to compare two reports, got {mine!r} and {theirs!r}.")
        theirs = dict(other._columns())
        return self._intervals((name, column - theirs[name]) for name, column in self._columns() if name in theirs)

    @property
    def shares(self) -> dict[str, float]:
        """The shares of targets that could not be found: unknown to the model, barred by `exclude`."""
        return {"unknown_share": 1 - _mean(self.targets["known"]), "barred_share": _mean(self.targets["barred"])}

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the columns, as JSON."""
        return {
            "model": self.model,
            "settings": self.settings.model_dump(mode="json"),
            "metrics": {name: asdict(estimate) for name, estimate in self.metrics.items()},
            "warm": self.warm,
            "breakdown": self.breakdown,
            "calibration": dict(self.calibration),
            "questions": {"n": len(self), "targets": len(self.targets["known"]), **self.shares},
            "facts": dict(self.facts),
        }

    def table(self) -> str:
        """Return the metrics as lines of text, with what was asked and by which rules."""
        s = self.settings
        width = max((len(name) for name in self.metrics), default=0)
        lines = [f"{name:<{width}}  {estimate}" for name, estimate in self.metrics.items()]
        shares = self.shares
        about = (
            f"{self.model}: {len(self)} questions, {len(self.targets['known'])} targets "
            f"({shares['unknown_share']:.1%} unknown, {shares['barred_share']:.1%} barred); all items are candidates, "
            f"exclude {s.exclude}, ties {s.ties}; {s.confidence:.0%} intervals; "
            f"{self.facts['answer_cpu_ms']:.3f} CPU-ms an answer"
        )
        return "\n".join([about, *lines])

    def save(self, path: Path) -> None:
        """Write the report with all its columns to a `.npz` file."""
        about = {
            "model": self.model,
            "settings": self.settings.model_dump(mode="json"),
            "questions_key": self.questions_key,
            "whole": dict(self.whole),
            "calibration": dict(self.calibration),
            "facts": dict(self.facts),
        }
        columns: dict[str, Any] = {f"target.{n}": c for n, c in self.targets.items()}
        columns |= {f"question.{n}": c for n, c in self.questions.items()}
        with whole_file(path) as scratch, scratch.open("wb") as file:
            np.savez_compressed(file, about=np.array(json.dumps(about)), offsets=self.offsets, **columns)

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Read what `save` wrote.

        Raises:
            ArtifactError: There is no such file, or it is damaged.
        """
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                parts = {name: file[name] for name in file.files if name != "about"}
        except Exception as error:
            raise ArtifactError(f"{path} is not a saved report: {error}") from None
        columns = {
            kind: {name.partition(".")[2]: column for name, column in parts.items() if name.startswith(kind + ".")}
            for kind in ("target", "question")
        }
        settings = EvaluationSettings.read(about.pop("settings"), str(path))
        return cls(
            **about,
            settings=settings,
            offsets=parts["offsets"],
            targets=columns["target"],
            questions=columns["question"],
        )

    # -- inside ---------------------------------------------------------------------------------

    def _columns(self) -> Iterator[tuple[str, Floats]]:
        yield from self._of_ranks(self.ranks)
        for name in self.settings.metrics:
            for k in self.settings.k:
                if f"{name}@{k}" in self.questions:
                    yield f"{name}@{k}", self.questions[f"{name}@{k}"].astype(np.float64)
        if "slate_auc" in self.questions:
            yield from self._of_slates()

    def _of_ranks(self, ranks: Ranks) -> Iterator[tuple[str, Floats]]:
        for name in self.settings.metrics:
            if name in RANK_METRICS:
                for k in self.settings.k:
                    yield f"{name}@{k}", RANK_METRICS[name](ranks, k)

    def _of_slates(self) -> Iterator[tuple[str, Floats]]:
        auc = self.questions["slate_auc"].astype(np.float64)
        counts = RankCounts(self.targets["slate_greater"], self.targets["slate_equal"])
        ranks = Ranks.of(counts, self.offsets, self.settings.ties)
        yield "slate_auc", auc
        for name, k in (("mrr", 2**31), ("ndcg", 5), ("ndcg", 10)):
            title = f"slate_{name}" if k == 2**31 else f"slate_{name}@{k}"
            yield title, np.where(np.isnan(auc), np.nan, RANK_METRICS[name](ranks, k))

    def _intervals(self, columns: Iterator[tuple[str, Floats]]) -> dict[str, Estimate]:
        names: list[str] = []

        def values() -> Iterator[Floats]:
            for name, column in columns:
                names.append(name)
                yield column

        s = self.settings
        found = intervals(
            values(), self.questions["groups"], resamples=s.bootstrap, seed=s.seed, confidence=s.confidence
        )
        return dict(zip(names, found, strict=True))

    def _by_group(self, ranks: Ranks, groups: list[tuple[str, NDArray[np.bool_]]]) -> list[dict[str, Any]]:
        columns = list(self._of_ranks(ranks))
        return [
            {
                "group": title,
                "n": int(chosen.sum()),
                "metrics": {name: _mean(column[chosen]) for name, column in columns},
            }
            for title, chosen in groups
            if chosen.any()
        ]


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _span(first: int, last: int) -> str:
    if last == first:
        return str(first)
    return f"{first}-{last}" if last < LENGTHS[-1][1] else f">{first - 1}"
