"""The numbers of the dashboard."""

import re
from typing import Any, get_args

from nextsession.serving.arms import Arm
from nextsession.serving.metrics import Snapshot, fallback_share, milliseconds, total, wilson
from nextsession.serving.questions import Source
from nextsession.serving.server import Server

_STAGES = ("recommend", "events", "history", "model", "explain", "store")


def operations(server: Server) -> dict[str, Any]:
    """Return what the dashboard draws: since the start, and over the last minute."""
    since, minute, workers = server.all_numbers()
    seconds = max(len(server.metrics.seconds), 1)
    counters = since.counters
    answering = [arm.name for arm in server.engine.arms if arm.role == "answer"]
    read = total(counters, "history_events_total")
    return {
        "now": server.clock(),
        "started": server.started,
        "workers": workers,
        "rate": {
            "requests": total(minute.counters, "requests_total") / seconds,
            "events": total(minute.counters, "events_total", status="accepted") / seconds,
        },
        "latency": {
            stage: {
                **{f"p{round(100 * p)}": milliseconds(row, p) for p in (0.5, 0.9, 0.99)},
                "count": sum(row),
            }
            for stage in _STAGES
            for row in [minute.histograms.get(f'seconds{{stage="{stage}"}}', [])]
        },
        "history": list(server.metrics.history),
        "answers": {source: total(counters, "items_total", source=source) for source in get_args(Source)},
        "chain": server.engine.chain.order,
        "explore": {
            "share": server.engine.exploring.share,
            "cold": {name: since.gauges.get(f'cold_items{{arm="{name}"}}') for name in answering},
        },
        "degraded": {what: total(counters, "degraded_total", what=what) for what in ("store", "model", "fallback")},
        "fallback_share": fallback_share(counters),
        "cold_share": total(counters, "history_events_total", known="no") / read if read else 0.0,
        "coverage": {name: since.gauges.get(f'coverage{{arm="{name}"}}', 0.0) for name in answering},
        "learning": [_learning(server, arm) for arm in server.engine.arms],
        "arms": [_arm(server, counters, arm.name) for arm in server.engine.arms],
        "shadows": [_shadow(since, arm) for arm in server.engine.arms.shadows],
        "store": server.engine.store.health(),
        "index": server.indexing.health(),
        "errors": _errors(counters),
    }


def _arm(server: Server, counters: dict[str, float], name: str) -> dict[str, Any]:
    arm = server.engine.arms.named(name)
    answers = total(counters, "answers_total", arm=name, chosen="no")
    clicks = total(counters, "clicks_total", arm=name)
    low, high = wilson(clicks, answers)
    return {
        "arm": name,
        "model": arm.served.model.name,
        "version": arm.served.version,
        "weight": arm.weight,
        "role": arm.role,
        "answers": answers,
        "clicks": clicks,
        "rate": min(clicks / answers, 1.0) if answers else 0.0,
        "low": low,
        "high": high,
    }


def _shadow(since: Snapshot, arm: Arm) -> dict[str, Any]:
    series = f'{{arm="{arm.name}"}}'
    answers, failures, dropped, overlap = (
        since.counters.get(f"shadow_{what}_total{series}", 0) for what in ("answers", "failures", "dropped", "overlap")
    )
    row = since.histograms.get(f"shadow_seconds{series}", [])
    return {
        "arm": arm.name,
        "model": arm.served.model.name,
        "version": arm.served.version,
        "answers": answers,
        "failures": failures,
        "dropped": dropped,
        "overlap": overlap / answers if answers else None,
        **{f"p{round(100 * p)}": milliseconds(row, p) for p in (0.5, 0.9, 0.99)},
    }


def _learning(server: Server, arm: Arm) -> dict[str, Any]:
    learnt = server.learner.learnt.get(arm.name)
    return {
        "arm": arm.name,
        "model": arm.served.model.name,
        "version": arm.served.version,
        "every": server.learner.every,
        "not_because": server.learner.refusal(arm.served) or None,
        "until": None if learnt is None or learnt.at is None else learnt.until,
        "at": None if learnt is None else learnt.at,
        "events": 0 if learnt is None else learnt.events,
        "seconds": 0.0 if learnt is None else learnt.seconds,
        "times": 0 if learnt is None else learnt.times,
        "failures": 0 if learnt is None else learnt.failures,
        "error": None if learnt is None else learnt.error or None,
    }


def _errors(counters: dict[str, float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for series, value in counters.items():
        status = re.search(r'status="([45]\d\d)"', series)
        if status and series.startswith("requests_total"):
            found[status[1]] = found.get(status[1], 0) + value
    return found
