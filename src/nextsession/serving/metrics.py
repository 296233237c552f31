"""Counters and histograms of a server: for Prometheus as text, for the dashboard as percentiles.

A series is named as Prometheus writes it, `requests_total{route="/v1/events",status="200"}`, so the
numbers of several worker processes are added key by key.
"""

import bisect
import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

PREFIX = "nextsession_"
EDGES = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
"""Upper edges of the buckets of all histograms, in seconds; one more holds the rest."""
_MINUTE, _HOUR = 60, 720

HELP = {
    "requests_total": "Requests by route and status.",
    "seconds": "Time by stage: the whole request, reading the history, the model, the explanation, the store.",
    "events_total": "Events by what became of them.",
    "items_total": "Items listed, by where they came from.",
    "answers_total": "Lists by arm.",
    "clicks_total": "Wanted events that name the request that showed the item, by arm.",
    "degraded_total": "Lists for which something failed, by what failed.",
    "history_events_total": "Events that lists rested on, by whether the model knows the item.",
    "shadow_answers_total": "Lists that shadows made, by arm.",
    "shadow_failures_total": "Questions that a shadow failed at, by arm.",
    "shadow_dropped_total": "Questions that shadows were not asked, for too much waited, by arm.",
    "shadow_overlap_total": "Sum of the shares of served lists that the list of the shadow holds, by arm.",
    "shadow_seconds": "Time of a list of a shadow, by arm.",
    "shadow_waiting": "Questions that wait for the shadows.",
    "models_refused_total": "Models that were not let in.",
    "learnt_total": "How often the model of an arm was told what happened.",
    "learn_failures_total": "How often that failed; the model before went on.",
    "learn_seconds_total": "How long that took.",
    "learnt_events": "Events that the model of an arm was told of since it was fitted.",
    "learnt_age_seconds": "How long ago everything happened that the model of an arm has been told of.",
    "in_flight": "Requests that are being answered.",
    "store_ok": "1 while events can be made durable.",
    "store_waiting": "Events that wait to be written.",
    "store_bytes": "Size of the store on the disk.",
    "index_recall": "Share of the exact best 100 items that the index of an arm finds; 1 without an index.",
    "index_building": "1 while an index is built for an arm.",
    "index_failures_total": "Indexes that could not be built or used.",
    "cold_items": "Items of the catalogue of an arm that may be explored.",
    "coverage": "Share of the catalogue that has been listed.",
    "clock_jumps_total": "How often the clock was set by more than a minute.",
    "process_cpu_seconds_total": "CPU time of the process.",
    "cpu_seconds_total": "CPU time by stage; the store has a thread of its own.",
}


class Snapshot(msgspec.Struct):
    """The numbers of one process, or of several added up."""

    counters: dict[str, float] = {}
    histograms: dict[str, list[int]] = {}
    """Counts in each bucket."""
    sums: dict[str, float] = {}
    """Seconds in all, of each histogram."""
    gauges: dict[str, float] = {}


class Metrics:
    """The numbers of one process; a second apart, what changed is kept for the dashboard."""

    def __init__(self) -> None:
        """Start from zero."""
        self.now = Snapshot()
        self.seconds: deque[Snapshot] = deque(maxlen=_MINUTE)
        """What each of the latest seconds added."""
        self.history: deque[dict[str, Any]] = deque(maxlen=_HOUR)
        """A row for the curves, every five seconds."""
        self._before = Snapshot()

    def count(self, series: str, by: float = 1) -> None:
        """Add to a counter."""
        self.now.counters[series] = self.now.counters.get(series, 0) + by

    def observe(self, series: str, seconds: float) -> None:
        """Add a length of time to a histogram."""
        found = self.now.histograms.get(series)
        if found is None:
            found = self.now.histograms[series] = [0] * (len(EDGES) + 1)
        found[bisect.bisect_left(EDGES, seconds)] += 1
        self.now.sums[series] = self.now.sums.get(series, 0.0) + seconds

    def gauge(self, series: str, value: float) -> None:
        """Set a number that may fall."""
        self.now.gauges[series] = value

    def tick(self, at: int) -> None:
        """Close a second; call it once in each."""
        now = copy(self.now)
        self.seconds.append(difference(now, self._before))
        self._before = now
        if at // 5000 != (self.history[-1]["at"] // 5000 if self.history else -1):
            latest = list(self.seconds)[-5:]
            some = added(latest)
            times = some.histograms.get('seconds{stage="recommend"}', [])
            self.history.append(
                {
                    "at": at,
                    "requests": total(some.counters, "requests_total") / len(latest),
                    "events": total(some.counters, "events_total", status="accepted") / len(latest),
                    "p50": milliseconds(times, 0.5),
                    "p90": milliseconds(times, 0.9),
                    "p99": milliseconds(times, 0.99),
                    "fallback": fallback_share(some.counters),
                }
            )

    def minute(self) -> Snapshot:
        """Return what the last minute added."""
        return added(self.seconds)


def copy(one: Snapshot) -> Snapshot:
    """Return numbers that go their own way."""
    return Snapshot(
        dict(one.counters), {k: list(v) for k, v in one.histograms.items()}, dict(one.sums), dict(one.gauges)
    )


def difference(now: Snapshot, before: Snapshot) -> Snapshot:
    """Return what was added since."""
    return Snapshot(
        {k: v - before.counters.get(k, 0) for k, v in now.counters.items()},
        {
            k: [a - b for a, b in zip(v, before.histograms.get(k, [0] * len(v)), strict=True)]
            for k, v in now.histograms.items()
        },
        {k: v - before.sums.get(k, 0.0) for k, v in now.sums.items()},
        dict(now.gauges),
    )


def added(many: Iterable[Snapshot]) -> Snapshot:
    """Return the sum of numbers of several processes or seconds; gauges too, of what all share the largest."""
    all_ = Snapshot()
    for one in many:
        for k, v in one.counters.items():
            all_.counters[k] = all_.counters.get(k, 0) + v
        for k, row in one.histograms.items():
            have = all_.histograms.get(k)
            all_.histograms[k] = list(row) if have is None else [a + b for a, b in zip(have, row, strict=True)]
        for k, v in one.sums.items():
            all_.sums[k] = all_.sums.get(k, 0.0) + v
        for k, v in one.gauges.items():
            shared = k.startswith(("coverage", "cold_items", "index_", "learnt_", "store_bytes"))
            least = k == "store_ok"
            have_ = all_.gauges.get(k)
            all_.gauges[k] = v if have_ is None else max(have_, v) if shared else min(have_, v) if least else have_ + v
    return all_


def total(counters: Mapping[str, float], name: str, **labels: str) -> float:
    """Return the sum of all series of a name, with these labels.

    >>> total({'x{a="1",b="2"}': 3, 'x{a="2"}': 4, "xy": 9}, "x", a="1")
    3
    """
    wanted = [f'{k}="{v}"' for k, v in labels.items()]
    return sum(
        v
        for k, v in counters.items()
        if (k == name or k.startswith(name + "{")) and all(label in k for label in wanted)
    )


def fallback_share(counters: Mapping[str, float]) -> float:
    """Return the share of listed items that no model listed."""
    everything = total(counters, "items_total") - total(counters, "items_total", source="explore")
    return 1 - total(counters, "items_total", source="model") / everything if everything else 0.0


def milliseconds(buckets: list[int], share: float) -> float | None:
    """Return a percentile of a histogram, within its bucket by proportion; None if it is empty.

    >>> milliseconds([0, 0, 10] + [0] * 19, 0.5)
    0.375
    """
    wanted, seen = share * sum(buckets), 0
    if not wanted:
        return None
    for place, count in enumerate(buckets):
        if count and seen + count >= wanted:
            low = EDGES[place - 1] if place else 0.0
            high = EDGES[place] if place < len(EDGES) else 2 * EDGES[-1]
            return round(1000 * (low + (high - low) * (wanted - seen) / count), 4)
        seen += count
    return None


def wilson(clicks: float, answers: float) -> tuple[float, float]:
    """Return the 95 % interval of a rate.

    >>> [round(x, 4) for x in wilson(10, 100)]
    [0.0552, 0.1744]
    """
    if answers <= 0:
        return 0.0, 1.0
    z, p = 1.959964, min(clicks / answers, 1.0)
    middle = p + z * z / (2 * answers)
    half = z * math.sqrt(p * (1 - p) / answers + z * z / (4 * answers * answers))
    return (middle - half) / (1 + z * z / answers), (middle + half) / (1 + z * z / answers)


def exposition(one: Snapshot) -> str:
    """Write the numbers as Prometheus reads them."""
    lines: list[str] = []
    groups: dict[str, list[str]] = {}
    for series, value in one.counters.items():
        groups.setdefault(_name(series), []).append(f"{PREFIX}{series} {_text(value)}")
    for series, value in one.gauges.items():
        groups.setdefault(_name(series), []).append(f"{PREFIX}{series} {_text(value)}")
    for series, row in one.histograms.items():
        name, labels = _name(series), series.partition("{")[2].rstrip("}")
        comma = "," if labels else ""
        running = 0
        out = groups.setdefault(name, [])
        for edge, count in zip((*EDGES, math.inf), row, strict=True):
            running += count
            bound = "+Inf" if edge == math.inf else f"{edge:g}"
            out.append(f'{PREFIX}{name}_bucket{{{labels}{comma}le="{bound}"}} {running}')
        tail = f"{{{labels}}}" if labels else ""
        out += [f"{PREFIX}{name}_sum{tail} {one.sums[series]:.6f}", f"{PREFIX}{name}_count{tail} {running}"]
    for name in sorted(groups):
        kind = "histogram" if name.endswith("seconds") else "counter" if name.endswith("_total") else "gauge"
        lines += [f"# HELP {PREFIX}{name} {HELP.get(name, name)}", f"# TYPE {PREFIX}{name} {kind}", *groups[name]]
    return "\n".join(lines) + "\n"


def _name(series: str) -> str:
    return series.partition("{")[0]


def _text(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6f}"
