"""Rows: what a comparison found out about one model, as JSON, and which rows can share a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nextsession.errors import ArtifactError, DataError
from nextsession.files import whole_file
from nextsession.registry import create

FORMAT = 1

OVER_BUDGET = "Over budget"
"""How the failure of a model begins that needed more CPU-seconds than it was given."""


@dataclass(frozen=True)
class Cost:
    """What a model cost; None: not measured."""

    fit_cpu_s: float | None = None
    answer_cpu_ms: float | None = None
    update_cpu_s: float | None = None
    peak_rss_mb: float | None = None
    """Of the whole process, data included, while this model learnt and answered."""
    bytes: int | None = None
    """Of the saved model."""
    budget_cpu_s: float | None = None


@dataclass(frozen=True)
class Difference:
    """How much better this row is than another, on the same questions, with an interval."""

    against: str
    metric: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One model in one table: JSON, in the form of `benchmarks/results/*.json`."""

    key: str
    """Hash of data, protocol, rules, model, settings and seed."""
    data: dict[str, Any]
    """name, fingerprint, and the counts and instants of the split."""
    protocol: dict[str, Any]
    """name, settings, candidates, exclude, ties, k: rows that differ here are never in one table."""
    model: str
    settings: dict[str, Any]
    seed: int
    reads_clock: bool
    cost: Cost
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """`{"ndcg@10": {"mean": ..., "low": ..., "high": ...}}`; empty if the model failed."""
    warm: dict[str, float] = field(default_factory=dict)
    """Means over the targets that the model knows."""
    breakdown: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    calibration: dict[str, list[float]] = field(default_factory=dict)
    questions: dict[str, float] = field(default_factory=dict)
    """n, targets, skipped, unknown_share, barred_share."""
    curve: dict[str, list[float | None]] = field(default_factory=dict)
    """How learning went, epoch by epoch: columns by name; empty for models that learn in one pass."""
    differences: list[Difference] = field(default_factory=list)
    missing_baselines: list[str] = field(default_factory=list)
    """Kinds of simple models that the comparison lacks."""
    failure: str | None = None
    """Why there are no metrics."""
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    command: str = ""

    @property
    def over_budget(self) -> bool:
        """Did the model need more than it was given?"""
        return self.failure is not None and self.failure.startswith(OVER_BUDGET)

    @property
    def title(self) -> str:
        """The model with the settings that tell it from its defaults."""
        changed = create(self.model, **self.settings).config.changed()
        return self.model + (f"({', '.join(f'{k}={v}' for k, v in changed.items())})" if changed else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Row":
        """Read what `to_dict` wrote.

        Raises:
            ArtifactError: A field is missing or unknown.
        """
        try:
            parts = dict(values)
            parts["cost"] = Cost(**parts["cost"])
            parts["differences"] = [Difference(**d) for d in parts.get("differences", [])]
            return cls(**parts)
        except (TypeError, KeyError) as error:
            raise ArtifactError(f"This is no row of a comparison: {error}. Compare again.") from None


def check_one_table(rows: Sequence[Row]) -> None:
    """Make sure that rows can stand in one table.

    Raises:
        DataError: They differ in data, protocol, candidates, rules or `k`; the message says where.
    """
    if not rows:
        return
    first = rows[0]
    for row in rows[1:]:
        facts = [("data", first.data.get("fingerprint"), row.data.get("fingerprint"))]
        facts += [(name, first.protocol.get(name), row.protocol.get(name)) for name in first.protocol | row.protocol]
        for name, one, other in facts:
            if one != other:
                raise DataError(
                    f"Rows of one table must agree in {name}: {first.model} has {one!r}, {row.model} has {other!r}. "
                    "Make a table of each."
                )


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as JSON."""
    content = json.dumps({"format": FORMAT, "rows": [row.to_dict() for row in rows]}, indent=1, allow_nan=False)
    with whole_file(path) as scratch:
        scratch.write_text(content + "\n", encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a comparison.

    Raises:
        ArtifactError: There is no such file, it is damaged, or a newer version wrote it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] > FORMAT:
            raise ArtifactError(f"{path} has format {content['format']}, this version reads up to {FORMAT}: upgrade.")
        return [Row.from_dict(row) for row in content["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} holds no rows of a comparison: {error}.") from None
