"""Leaderboard: the rows of one comparison in order, with names and numbers as people read them."""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nextsession.comparison import REFERENCES, Difference, Row, check_one_table
from nextsession.errors import DataError, UnknownNameError
from nextsession.metrics import RANK_METRICS
from nextsession.registry import create

_SHOWN = 6  # metrics of the main table, at most


@dataclass(frozen=True)
class Entry:
    """A row with a name that no other entry of the table has."""

    row: Row
    name: str
    changed: str
    """The settings that are not the defaults."""
    place: int | None = None
    """From 1; none for the reference and for models that failed."""

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric, none if it was not measured."""
        found = self.row.metrics.get(metric)
        return None if found is None else found["mean"]

    def interval(self, metric: str) -> tuple[float, float] | None:
        """Return the interval of a metric; none if there is none, or it has no width."""
        found = self.row.metrics.get(metric)
        if found is None or not found["low"] < found["high"]:
            return None
        return found["low"], found["high"]

    def difference(self, metric: str) -> Difference | None:
        """Return the paired difference in a metric that the row holds."""
        return next((d for d in self.row.differences if d.metric == metric), None)


class Leaderboard:
    """One table: all rows of one data set, protocol, candidate set and rules, best first.

    The first metric at the first `k` of the rows is the one that orders them.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        """Take rows in any order.

        Raises:
            DataError: There is none, none was measured, or they cannot stand in one table: they differ in data,
                protocol, candidates, `k`, excluded items or tie rule.
        """
        if not rows:
            raise DataError("A report needs at least one row.")
        check_one_table(rows)
        self.rows = list(rows)
        measured = [row for row in rows if row.failure is None and row.metrics]
        if not measured:
            reasons = "; ".join(f"{row.model}: {row.failure}" for row in rows[:3])
            raise DataError(f"No model of this comparison was measured ({reasons}).")
        self.metrics: list[str] = list(measured[0].metrics)
        """Every metric, as the rows order them."""
        self.primary: str = self.metrics[0]
        names = _names(rows)
        made = [(row, names[i], _changed(row)) for i, row in enumerate(rows)]
        ranked = [m for m in made if m[0].failure is None and m[0].metrics and m[0].model not in REFERENCES]
        ranked.sort(key=lambda m: -m[0].metrics[self.primary]["mean"])
        self.entries: list[Entry] = [Entry(*m, place=place) for place, m in enumerate(ranked, 1)]
        """The models that were measured, best first."""
        self.reference: Entry | None = next(
            (Entry(*m) for m in made if m[0].model in REFERENCES and m[0].metrics), None
        )
        self.failures: list[Entry] = [Entry(*m) for m in made if m[0].failure is not None]

    @property
    def first(self) -> Row:
        """Any row: what all share can be read from it."""
        return self.rows[0]

    @property
    def measured(self) -> list[Entry]:
        """The ranked entries and the reference."""
        return self.entries + ([self.reference] if self.reference else [])

    @cached_property
    def shown(self) -> list[str]:
        """The metrics of the main table: those at the `k` of the first one, at most six."""
        k = self.primary.partition("@")[2]
        same = [m for m in self.metrics if m.partition("@")[2] == k]
        return (same or self.metrics)[:_SHOWN]

    @property
    def missing_baselines(self) -> list[str]:
        """Kinds of simple models that the comparison lacks."""
        return sorted({kind for row in self.rows for kind in row.missing_baselines})

    def best(self, metric: str) -> float | None:
        """Return the best mean of a metric among the ranked; none if it has no better and worse."""
        if not is_better_when_larger(metric):
            return None
        return max((m for e in self.entries if (m := e.mean(metric)) is not None), default=None)

    def indistinct(self, entry: Entry, metric: str) -> bool:
        """Say whether the entry's paired difference from the leader includes 0."""
        if not self.entries or entry is self.entries[0]:
            return False
        found = entry.difference(metric)
        return found is not None and self.leads(found.against) and found.low <= 0 <= found.high

    def leads(self, title: str) -> bool:
        """Say whether this is how rows call the leader."""
        return bool(self.entries) and plain(title) in (self.entries[0].name, plain(_title(self.entries[0].row)))

    def of_reference(self, entry: Entry) -> float | None:
        """Return the share of the reference's primary metric that an entry reaches."""
        top = self.reference.mean(self.primary) if self.reference else None
        mean = entry.mean(self.primary)
        return mean / top if top and mean is not None else None

    def verdict(self) -> str:
        """Say in a sentence or two who leads, by how much, and whether that means anything."""
        if not self.entries:
            return "Only the oracle was measured."
        leader = self.entries[0]
        interval = leader.interval(self.primary)
        text = f"{leader.name} leads with {metric_name(self.primary)} {number(leader.mean(self.primary))}"
        text += f" ({number(interval[0])} to {number(interval[1])})" if interval else ""
        if len(self.entries) > 1:
            second = self.entries[1]
            same = [e.name for e in self.entries[1:] if self.indistinct(e, self.primary)]
            gap = (leader.mean(self.primary) or 0.0) - (second.mean(self.primary) or 0.0)
            text += f", {number(gap)} above {second.name}"
            if same:
                text += f"; on these questions it cannot be told from {_listed(same)}"
        share = self.of_reference(leader)
        if share is not None:
            text += f". It reaches {share:.0%} of what the oracle, who knows the truth of this simulated log, gets"
        return text + "."


def is_better_when_larger(metric: str) -> bool:
    """Say whether more of a metric is better; of coverage or popularity that cannot be said.

    >>> is_better_when_larger("ndcg@10"), is_better_when_larger("popularity@10")
    (True, False)
    """
    name = metric.partition("@")[0]
    return name in RANK_METRICS or name.startswith("slate_")


def metric_name(metric: str) -> str:
    """Write the name of a metric as papers do.

    >>> metric_name("ndcg@10"), metric_name("slate_auc"), metric_name("recall@20")
    ('NDCG@10', 'AUC of slates', 'Recall@20')
    """
    name, at, k = metric.partition("@")
    slate = name.startswith("slate_")
    name = name.removeprefix("slate_")
    known = {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "auc": "AUC", "f1": "F1", "hitrate": "Hit rate"}
    written = known.get(name, name.replace("_", " ").capitalize())
    return written + at + k + (" of slates" if slate else "")


def number(value: float | None) -> str:
    """Write a number with three digits that say something.

    >>> number(0.19342), number(0.00412), number(12.34), number(0.0), number(None)
    ('0.193', '0.0041', '12.3', '0', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) < 0.01:
        return f"{value:.2g}" if abs(value) < 0.0001 else f"{value:.4f}"
    if abs(value) < 1:
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size(count: float | None) -> str:
    """Write a number of bytes.

    >>> size(1234567), size(870), size(None)
    ('1.2 MB', '870 B', '–')
    """
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def plain(text: object) -> str:
    """Return text on one line without control characters: names come from files of strangers."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def _names(rows: Sequence[Row]) -> list[str]:
    """Name rows as briefly as tells them apart: the model, then its settings, then its seed, then a number."""
    found = [plain(row.model) for row in rows]
    for fuller in (
        [plain(_title(row)) for row in rows],
        [f"{plain(_title(row))}, seed {row.seed}" for row in rows],
        [f"{plain(_title(row))}, seed {row.seed} ({i})" for i, row in enumerate(rows, 1)],
    ):
        often = Counter(found)
        found = [longer if often[name] > 1 else name for name, longer in zip(found, fuller, strict=True)]
    return found


def _title(row: Row) -> str:
    changed = _changed(row)
    return f"{row.model}({changed})" if changed else row.model


def _changed(row: Row) -> str:
    """Return the settings that are not the defaults; all of them for a model that is not installed here."""
    changed: dict[str, Any] = row.settings
    with suppress(UnknownNameError, ValueError):
        changed = create(row.model, **row.settings).config.changed()
    return plain(", ".join(f"{name}={value}" for name, value in changed.items()))


def _listed(names: Sequence[str]) -> str:
    if len(names) > 3:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
