"""A study carried out: its models compared, its summary written."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nextsession.comparison import ModelSpec, compare
from nextsession.errors import ConfigError
from nextsession.experiment import Experiment, override
from nextsession.outcomes import Report
from nextsession.progress import Progress, silent
from nextsession.rows import Row
from nextsession.splits import Split
from nextsession.study.plans import DATA, TITLES, Arm, Known, Name, StudySettings, arms
from nextsession.study.summary import Summary, measured

_EVALUATION = {"metrics": ("ndcg", "recall"), "k": (10, 100, 500)}


@dataclass(frozen=True)
class Request:
    """A study of one log, before anything is read."""

    study: Name
    settings: StudySettings
    experiment: Experiment


def read(study: str, data: Mapping[str, Any], overrides: Sequence[str] = ()) -> Request:
    """Read what is asked for.

    Args:
        study: One of `TITLES`.
        data: The table `data` of an experiment.
        overrides: Such as `study.epochs=5`, `split.users=1000`, `data.shop.users=300`.

    Raises:
        ConfigError: There is no such study, or a setting is wrong.
    """
    if study not in TITLES:
        raise ConfigError(f"There is no study {study!r}. Studies: {', '.join(TITLES)}.")
    special = DATA.get("shop" if "shop" in data else str(data.get("set")), {})
    tables: dict[str, Any] = {
        "data": {"shop": dict(special.get("shop", {}))} if "shop" in data and not data["shop"] else dict(data),
        "split": {"protocol": "leave-one-session-out"},
        "evaluation": dict(_EVALUATION),
        "study": dict(special.get("study", {})),
    }
    if "filters" in special:
        tables["filters"] = dict(special["filters"])
    if "users" in special:
        tables["split"]["users"] = special["users"]
    for text in overrides:
        override(tables, text)
    settings = StudySettings.read(tables.pop("study"), "study")
    tables["split"].setdefault("validation_share", settings.share)
    return Request(study, settings, Experiment.read(tables))  # type: ignore[arg-type]


def known(request: Request, split: Split) -> Known:
    """Return what plans must know of the log."""
    shop = request.experiment.data.shop
    return Known.of(split.train, None if shop is None else shop.model_dump(mode="json"))


def specs(chosen: Sequence[Arm], seeds: int) -> list[tuple[str, ModelSpec]]:
    """Return what is trained: each network once for each seed, seeds last, so that an early end leaves whole tables."""
    return [
        (arm.name, ModelSpec(arm.model, arm.settings, seed))
        for seed in range(seeds)
        for arm in chosen
        if arm.trained or seed == 0
    ]


def carry_out(
    request: Request,
    split: Split,
    *,
    data: str,
    out: Path,
    budget: float | None = None,
    resume: bool = True,
    progress: Progress = silent,
) -> Summary:
    """Compare the models of a study, and write its summary to `out/<study>.json`.

    What is in `out` already is not made again; all studies of one log share it.

    Raises:
        ConfigError: A setting is wrong.
        DataError: The log does not hold what the study is about.
    """
    from nextsession.study.intent import compare_intents
    from nextsession.study.scaling import scale

    experiment = request.experiment
    if request.study == "intent":
        summary = compare_intents(request, data=data, out=out, budget=budget, resume=resume, progress=progress)
    elif request.study == "scaling":
        summary = scale(request, split, data=data, out=out, budget=budget, resume=resume, progress=progress)
    else:
        chosen = arms(request.study, request.settings, known(request, split))
        names, jobs = zip(*specs(chosen, request.settings.seeds), strict=True)
        rows = compare(
            split, jobs, experiment.evaluation, out=out, budget=budget, data=data, resume=resume,
            runtime=experiment.runtime, progress=progress,
        )  # fmt: skip
        summary = summarised(request, chosen, names, rows, out)
    summary.save(out / f"{request.study}.json")
    return summary


def summarised(
    request: Request, chosen: Sequence[Arm], names: Sequence[str], rows: Sequence[Row], out: Path
) -> Summary:
    """Put the rows of all seeds together."""
    of_arm = {arm.name: [r for name, r in zip(names, rows, strict=True) if name == arm.name] for arm in chosen}
    reports = {name: reports_of(found, out) for name, found in of_arm.items()}
    return Summary(
        request.study, facts(rows[0]), request.settings.model_dump(mode="json"), command(), rows[0].commit,
        measured(chosen, of_arm, reports),
    )  # fmt: skip


def reports_of(rows: Sequence[Row], out: Path) -> list[Report]:
    """Return the reports of the rows of one model; none if any failed."""
    if any(row.failure for row in rows):
        return []
    return [Report.load(out / f"{row.model}-{row.key}.npz") for row in rows]


def facts(row: Row) -> dict[str, Any]:
    """Return what a table says of its data."""
    kept = ("name", "protocol", "fingerprint", "train", "validation_questions", "test_questions")
    return {name: row.data[name] for name in kept if name in row.data} | {"questions": row.questions}


def command() -> str:
    """Return the line by which this was made."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def part(split: Split, people: Any, note: str) -> Split:
    """Return a split that learns from some of the people; questions and validation stay."""
    train = split.train.take(people).compact()
    counts = {"users": len(train), "sessions": train.n_sessions, "events": train.n_events, "items": train.n_items}
    told = {**split.facts, "fingerprint": f"{split.facts['fingerprint']}-{note}", "train": counts}
    return replace(split, train=train, facts=told)
