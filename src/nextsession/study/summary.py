"""Summaries: what came of a plan, as JSON from which every table and picture is made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nextsession.errors import ArtifactError
from nextsession.files import whole_file
from nextsession.outcomes import Report
from nextsession.rows import Row
from nextsession.study.estimates import Draws, draw
from nextsession.study.plans import BEST_OF_ITEMS, METRICS, Arm

Interval = dict[str, float]
"""mean, low, high, and perhaps the spread over seeds."""

GAIN = "gain"
"""Beside the metrics: the mean over the six of how much better a model is, as a share."""


@dataclass(frozen=True)
class Measured:
    """One model of a table with what it reached."""

    name: str
    kind: str
    timed: bool
    against: str = ""
    x: float | None = None
    seeds: int = 1
    metrics: dict[str, Interval] = field(default_factory=dict)
    """Empty if a training failed."""
    differences: dict[str, Interval] = field(default_factory=dict)
    """From the model `against`, by metric, and the `gain`."""
    fit_cpu_s: float | None = None
    answer_cpu_ms: float | None = None
    curve: dict[str, list[float | None]] = field(default_factory=dict)
    """Of the first seed."""
    failure: str | None = None


@dataclass(frozen=True)
class Summary:
    """A table of the study."""

    study: str
    data: dict[str, Any]
    """name, and the counts of the split."""
    settings: dict[str, Any]
    """What all networks share."""
    command: str
    commit: str | None
    models: list[Measured]
    more: dict[str, Any] = field(default_factory=dict)
    """What only this study has."""

    @property
    def metrics(self) -> list[str]:
        """The metrics of all models."""
        return next((list(m.metrics) for m in self.models if m.metrics), [])

    def save(self, path: Path) -> None:
        """Write the summary."""
        text = json.dumps(_rounded(asdict(self)), indent=1, allow_nan=False)
        with whole_file(path) as scratch:
            scratch.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Summary":
        """Read what `save` wrote.

        Raises:
            ArtifactError: There is no such file, or it is another.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "models": [Measured(**m) for m in values["models"]]})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} holds no summary of a study: {error}.") from None


def measured(
    arms: Sequence[Arm], rows: Mapping[str, Sequence[Row]], reports: Mapping[str, Sequence[Report]]
) -> list[Measured]:
    """Work out the means, intervals and differences of models.

    Args:
        arms: The models.
        rows: Of each by name, one for each seed.
        reports: Of each by name; of those that failed none.
    """
    some = {arm.name: list(reports[arm.name]) for arm in arms if reports.get(arm.name)}
    if not some:
        return [_failed(arm, rows[arm.name]) for arm in arms]
    one = next(iter(some.values()))[0]
    names = [*METRICS, *(name for name in one.names if name.startswith("slate_"))]
    settings = one.settings
    draws = draw(some, names, resamples=settings.bootstrap, seed=settings.seed, confidence=settings.confidence)
    return [
        _measured(arm, rows[arm.name], draws, rival(arm, arms, draws)) if arm.name in some else
        _failed(arm, rows[arm.name])
        for arm in arms
    ]  # fmt: skip


def rival(arm: Arm, arms: Sequence[Arm], draws: Draws) -> str:
    """Return the name of what an arm is compared with; empty: nothing, or it failed."""
    if arm.against != BEST_OF_ITEMS:
        return arm.against if arm.against in draws.names else ""
    over_items = [x for x in arms if x.kind == "items" and x.timed == arm.timed and x.name in draws.names]
    if arm.kind == "items" or not over_items:
        return ""
    chosen = [draws.metrics.index(m) for m in METRICS]
    best = np.max([draws.means[draws.names.index(x.name)][chosen] for x in over_items], axis=0)
    best = np.where(best > 0, best, 1.0)
    return max(over_items, key=lambda x: float((draws.means[draws.names.index(x.name)][chosen] / best).mean())).name


def _measured(arm: Arm, rows: Sequence[Row], draws: Draws, other: str) -> Measured:
    place = draws.names.index(arm.name)
    metrics: dict[str, Interval] = {}
    for m, metric in enumerate(draws.metrics):
        metrics[metric] = asdict(draws.of(arm.name, metric))
        if np.isfinite(draws.spread[place, m]):
            metrics[metric]["spread"] = float(draws.spread[place, m])
    differences: dict[str, Interval] = {}
    if other:
        differences = {m: asdict(draws.difference(arm.name, other, m)) for m in draws.metrics}
        differences[GAIN] = asdict(draws.gain(arm.name, other, METRICS))
    return Measured(
        arm.name, arm.kind, arm.timed, other, arm.x, len(rows), metrics, differences,
        _mean([row.cost.fit_cpu_s for row in rows]), _mean([row.cost.answer_cpu_ms for row in rows]),
        dict(rows[0].curve),
    )  # fmt: skip


def _failed(arm: Arm, rows: Sequence[Row]) -> Measured:
    failure = next((row.failure for row in rows if row.failure), "not measured")
    return Measured(arm.name, arm.kind, arm.timed, x=arm.x, seeds=len(rows), failure=failure)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [x for x in values if x is not None]
    return float(np.mean(known)) if known else None


def _rounded(value: Any) -> Any:
    """Return numbers with as many digits as mean something, and none that JSON lacks."""
    if isinstance(value, Mapping):
        return {key: _rounded(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(x) for x in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
