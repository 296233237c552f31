"""Intent: shops that differ only in how long a wish lasts, and what sessions are worth in each.

Within a visit the next click follows the wish of that visit.  What is wanted in the next visit follows it only as far
as it outlives the pause.  So the less of it is carried over, the less a model that learns the next click learns
of the question, and a model that learns the next session is asked what it learnt.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from nextsession.comparison import compare
from nextsession.data.shop import Shop, ShopSettings
from nextsession.errors import DataError
from nextsession.progress import Progress, silent
from nextsession.splits import Split, SplitSettings, split
from nextsession.study.plans import Known, arms, named
from nextsession.study.run import Request, command, facts, reports_of, specs
from nextsession.study.summary import Measured, Summary, measured


def compare_intents(
    request: Request,
    *,
    data: str,
    out: Path,
    budget: float | None = None,
    resume: bool = True,
    progress: Progress = silent,
) -> Summary:
    """Compare sessions with items in one shop after the other.

    Raises:
        DataError: The log is not of the simulated shop, where alone this can be set.
    """
    experiment, settings = request.experiment, request.settings
    if experiment.data.shop is None:
        raise DataError(
            "The study 'intent' sets how long a wish lasts, which only the simulated shop can: --data shop."
        )
    chosen = arms("intent", settings, Known(True, True))
    found: list[Measured] = []
    worlds: list[dict[str, Any]] = []
    for lasts in settings.lasting:
        parts = _asked(experiment.data.shop, lasts, experiment.split)
        names, jobs = zip(*specs(chosen, settings.seeds), strict=True)
        place = out / "intent" / f"{lasts:g}"
        rows = compare(
            parts, jobs, experiment.evaluation, out=place, budget=budget, data=data, resume=resume,
            runtime=experiment.runtime, progress=progress,
        )  # fmt: skip
        here = [replace(arm, name=named(arm, lasts), x=lasts) for arm in chosen]
        of_arm = {
            named(arm, lasts): [r for name, r in zip(names, rows, strict=True) if name == arm.name] for arm in chosen
        }
        found += measured(here, of_arm, {name: reports_of(own, place) for name, own in of_arm.items()})
        worlds.append({"persistence": lasts, **facts(rows[0])})
    return Summary(
        "intent", {k: v for k, v in worlds[0].items() if k != "persistence"}, settings.model_dump(mode="json"),
        command(), rows[0].commit, found, {"worlds": worlds},
    )  # fmt: skip


def _asked(shop: ShopSettings, lasts: float, protocol: SplitSettings) -> Split:
    return split(Shop(shop.model_copy(update={"persistence": lasts})).log(), protocol)
