"""Scaling: sizes of the data and of the model, a law, and an extrapolation that is written before it is checked.

The greatest size, all people at the greatest width, is not part of the fit.  What the law says of it is
written to `prediction.json` before it is trained; a prediction that came after would be none, and is refused.

Every size may take as many steps as the greatest, and is given up after as many without a better score: a share
of the people makes more passes, so that less data does not also mean less training.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from nextsession.comparison import ModelSpec, compare
from nextsession.errors import DataError
from nextsession.files import whole_file
from nextsession.outcomes import Report
from nextsession.progress import Progress, silent
from nextsession.rows import Row
from nextsession.splits import Split
from nextsession.study.estimates import Draws, draw
from nextsession.study.law import Floats, Law, fit
from nextsession.study.plans import METRICS, Arm, StudySettings, session_level
from nextsession.study.run import Request, command, facts, part, reports_of
from nextsession.study.summary import Summary, measured

_FITS = 200  # resamples of which a law is fitted


@dataclass(frozen=True)
class Cell:
    """One size: a share of the people, and a width."""

    share: float
    width: int

    @property
    def name(self) -> str:
        """Say which, such as `1/4 of the people, width 32`."""
        return f"1/{round(1 / self.share)} of the people, width {self.width}"


def grid(settings: StudySettings) -> tuple[list[Cell], Cell]:
    """Return the sizes that the law is fitted on, and the greatest, which it has to foretell.

    All shares of the people at the greatest width, and all widths at the greatest of these shares.
    """
    shares = [0.5**step for step in range(settings.steps - 1, 0, -1)]
    widths = sorted(settings.widths)
    cells = [Cell(share, widths[-1]) for share in shares]
    return cells + [Cell(shares[-1], width) for width in widths[:-1]], Cell(1.0, widths[-1])


def scale(
    request: Request,
    split: Split,
    *,
    data: str,
    out: Path,
    budget: float | None = None,
    resume: bool = True,
    progress: Progress = silent,
) -> Summary:
    """Train every size with every seed, fit the law, write what it foretells, and only then train the greatest."""
    cells, last = grid(request.settings)
    metric = request.settings.law_metric
    place, final = out / "scaling", out / "scaling" / "greatest"

    def trained(chosen: Sequence[Cell], folder: Path) -> Iterator[tuple[Cell, list[Row]]]:
        for cell in chosen:
            yield cell, _train(request, split, cell, folder, data, budget, resume, progress)

    rows = dict(trained(cells, place))
    events = [float(np.mean([row.data["train"]["events"] for row in rows[cell]])) for cell in cells]
    reports = {cell.name: reports_of(rows[cell], place) for cell in cells}
    if failed := [cell.name for cell in cells if not reports[cell.name]]:
        raise DataError(f"A law needs every size, and these were not trained: {'; '.join(failed)}. Raise the budget.")
    goes_to = float(split.train.n_events)
    keys = [row.key for cell in cells for row in rows[cell]]
    told = _foretell(place / "prediction.json", cells, last, events, goes_to, reports, metric, keys, final)
    of_last = dict(trained([last], final))[last]
    reports[last.name] = reports_of(of_last, final)
    every = {**rows, last: of_last}
    arms = [Arm(cell.name, "sessionrec", _settings(request.settings, cell)) for cell in every]
    found = measured(arms, {cell.name: every[cell] for cell in every}, reports)
    return Summary(
        "scaling", {**facts(of_last[0])}, request.settings.model_dump(mode="json"), command(), of_last[0].commit, found,
        {
            "cells": [
                {"name": cell.name, "share": cell.share, "width": cell.width, "events": n, "held_out": cell == last}
                for cell, n in zip(every, [*events, goes_to], strict=True)
            ],
            **told,
            "check": check(told, next(m.metrics[metric] for m in found if m.name == last.name)),
        },
    )  # fmt: skip


def check(told: dict[str, Any], observed: dict[str, float]) -> dict[str, Any]:
    """Compare what was foretold with what came."""
    prediction = told["prediction"]
    return {
        "observed": observed["mean"],
        "off_by": observed["mean"] - prediction["mean"],
        "inside": bool(prediction["low"] <= observed["mean"] <= prediction["high"]),
    }


def foretold(draws: Draws, cells: Sequence[Cell], events: Floats, metric: str, to: tuple[float, int]) -> dict[str, Any]:
    """Fit the law to the means and to resamples of people and seeds, and say what it gives for a greater size.

    The interval holds what the fit leaves open, and the chance of as many seeds at the greater size.
    """
    place = list(draws.metrics).index(metric)
    order = [list(draws.names).index(cell.name) for cell in cells]
    widths = np.array([cell.width for cell in cells], float)
    law = fit(events, widths, 1 - draws.means[order, place])
    spread = draws.spread[order, place]
    noise = float(np.sqrt(np.nanmean(spread**2))) if np.isfinite(spread).any() else 0.0
    rng = np.random.default_rng(0)
    laws = [fit(events, widths, 1 - row) for row in draws.drawn[:_FITS, :, place][:, order]]
    reached = np.array([1 - float(x.missed(*to)) for x in laws]) + rng.normal(0, noise, len(laws))
    names = ("floor", "a", "alpha", "b", "beta")
    bounds = {name: np.percentile([getattr(x, name) for x in laws], [2.5, 97.5]).tolist() for name in names}
    low, high = np.percentile(reached, [2.5, 97.5])
    return {
        "metric": metric,
        "law": asdict(law),
        "law_intervals": bounds,
        "residual": float(np.sqrt(np.mean((1 - law.missed(events, widths) - draws.means[order, place]) ** 2))),
        "band": _band(laws, events, to, widths),
        "prediction": {
            "mean": 1 - float(law.missed(*to)), "low": float(low), "high": float(high),
            "events": to[0], "width": to[1],
        },
    }  # fmt: skip


def _band(laws: Sequence[Law], events: Floats, to: tuple[float, int], widths: Floats) -> dict[str, list[float]]:
    """Return the law over the events at the greatest width, with its interval, for a picture."""
    across = np.geomspace(events.min(), to[0], 25)
    curves = np.array([1 - law.missed(across, widths.max()) for law in laws])
    low, middle, high = np.percentile(curves, [2.5, 50, 97.5], axis=0)
    return {"events": across.tolist(), "low": low.tolist(), "mean": middle.tolist(), "high": high.tolist()}


def _foretell(
    path: Path,
    cells: Sequence[Cell],
    last: Cell,
    events: Sequence[float],
    goes_to: float,
    reports: dict[str, list[Report]],
    metric: str,
    keys: list[str],
    final: Path,
) -> dict[str, Any]:
    """Read the prediction made of these very trainings, or make it, if the greatest size has not been trained yet.

    Raises:
        DataError: It has.
    """
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("keys") == keys and found["metric"] == metric:
            return found
    if final.exists() and any(final.iterdir()):
        raise DataError(
            f"The greatest size was trained already ({final}), so nothing can be foretold of it any more. Remove that "
            "folder, or name another with --out, to begin anew."
        )
    one = next(iter(reports.values()))[0].settings
    draws = draw(reports, [*METRICS], resamples=max(_FITS, one.bootstrap), seed=one.seed)
    told = foretold(draws, cells, np.array(events), metric, (goes_to, last.width))
    told["written"] = datetime.now(UTC).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as scratch:
        scratch.write_text(json.dumps({**told, "keys": keys}, indent=1) + "\n", encoding="utf-8")
    return told


def _settings(settings: StudySettings, cell: Cell) -> dict[str, Any]:
    epochs, patience = (round(passes / cell.share) for passes in (settings.epochs, settings.patience))
    return session_level(settings, dim=cell.width, epochs=epochs, patience=patience)


def _train(
    request: Request,
    split: Split,
    cell: Cell,
    folder: Path,
    data: str,
    budget: float | None,
    resume: bool,
    progress: Progress,
) -> list[Row]:
    """Train one size with every seed; the seed draws the people too, the same ones and more at each greater share."""
    rows: list[Row] = []
    for seed in range(request.settings.seeds):
        people = np.random.default_rng([seed, 7]).permutation(len(split.train))
        chosen = np.sort(people[: max(1, round(cell.share * len(people)))])
        spec = ModelSpec("sessionrec", _settings(request.settings, cell), seed)
        learnt = split if cell.share == 1 else part(split, chosen, f"{cell.share}-{seed}")
        found = compare(
            learnt, [spec], request.experiment.evaluation, out=folder, budget=budget, data=data, resume=resume,
            runtime=request.experiment.runtime, progress=progress,
        )  # fmt: skip
        rows += [replace(row, seed=seed) for row in found]
    return rows
