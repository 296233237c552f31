"""Comparison: many models, one split, one budget, one table.

Models are trained and asked one after another.  Each result is a `Row`, kept as JSON under a hash
of everything that decides it, so a comparison that was interrupted goes on where it stopped.  A
model that fails, or needs more than its budget, has a row that says so and stops nobody else.
"""

import hashlib
import inspect
import json
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nextsession.checkpoints import cpu_seconds, state_of
from nextsession.config import Runtime
from nextsession.cost import OverBudgetError, forget_peak, peak_memory, within
from nextsession.data.cases import Blocks
from nextsession.errors import ArtifactError, ConfigError
from nextsession.evaluation import EvaluationSettings, Report, evaluate
from nextsession.progress import Progress, silent
from nextsession.recommender import Recommender
from nextsession.registry import create
from nextsession.rows import OVER_BUDGET, Cost, Difference, Row, check_one_table, read_rows, write_rows
from nextsession.splits import Split

__all__ = [
    "BASELINES",
    "REFERENCES",
    "Cost",
    "Difference",
    "ModelSpec",
    "Row",
    "check_one_table",
    "compare",
    "missing_baselines",
    "read_rows",
    "write_rows",
]

_WARM_UP_USERS = 50

BASELINES: Mapping[str, frozenset[str]] = {
    "recent popularity": frozenset({"recent"}),
    "session kNN": frozenset({"sknn", "vsknn", "stan", "vstan", "vmisknn"}),
    "sequential rules": frozenset({"sequentialrules"}),
}
"""What every table should hold: kinds of simple models, and the models of each kind."""


REFERENCES = frozenset({"oracle"})
"""Models that know the truth of a simulated log: shown beside the others, never the best among them."""


@dataclass(frozen=True)
class ModelSpec:
    """A model to compare."""

    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


def compare(
    split: Split,
    specs: Sequence[ModelSpec],
    settings: EvaluationSettings | None = None,
    *,
    out: Path,
    budget: float | None = None,
    data: str = "log",
    resume: bool = True,
    runtime: Runtime | None = None,
    progress: Progress = silent,
) -> list[Row]:
    """Train and evaluate models one after another.

    Args:
        split: What to learn from and what to ask.
        specs: The models; their names and settings are checked before anything is trained.
        settings: Metrics and rules, the same for all.
        out: A folder for `rows.json` and, for each model, its row and its report with all columns.
        budget: Most CPU-seconds for learning and answering, for each model; none: no limit.
        data: The name of the data in tables.
        resume: Take rows that are there already, and go on from checkpoints; False: make all anew.
        runtime: Where networks are trained, and in which folder their checkpoints are kept, each model's in one of its
            own; its seed is not read (each spec has one).
        progress: Told of the models done.

    Returns:
        The rows in the order of the specs, each but the best with its difference from the best, and
        the best with its difference from the second.

    Raises:
        UnknownNameError: There is no such model.
        ConfigError: A setting is wrong, or no model is given.
    """
    settings = settings or EvaluationSettings()
    runtime = (runtime or Runtime()).model_copy(update={"logs": None})
    if not specs:
        raise ConfigError("There is nothing to compare: name at least one model.")
    jobs = [_Job(spec, create(spec.model, **spec.settings), split, settings, budget, data, runtime) for spec in specs]
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for done, job in enumerate(jobs):
        progress("compare", done, len(jobs))
        if not resume:
            job.forget()
        row = job.known(out) if resume else None
        rows.append(row or job.run(out, progress))
    progress("compare", len(jobs), len(jobs))
    missing = missing_baselines(spec.model for spec in specs)
    rows = [replace(row, missing_baselines=missing) for row in _with_differences(rows, out)]
    write_rows(out / "rows.json", rows)
    return rows


def missing_baselines(models: Iterable[str]) -> list[str]:
    """Return the kinds of simple models that are not among these.

    >>> missing_baselines(["vsknn", "recent"])
    ['sequential rules']
    """
    present = set(models)
    return [kind for kind, some in BASELINES.items() if not present & some]


# -- one model ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    spec: ModelSpec
    model: Recommender[Any]
    split: Split
    settings: EvaluationSettings
    budget: float | None
    data: str
    runtime: Runtime

    @property
    def protocol(self) -> dict[str, Any]:
        s = self.settings
        return {
            "name": self.split.protocol,
            "settings": self.split.settings.in_force(),
            "candidates": "all",
            "exclude": s.exclude,
            "ties": s.ties,
            "k": list(s.k),
        }

    @property
    def key(self) -> str:
        code = inspect.getsourcefile(type(self.model))
        decides = {
            "data": self.split.facts["fingerprint"],
            "protocol": self.protocol,
            "evaluation": self.settings.model_dump(mode="json"),
            "model": self.spec.model,
            "settings": self.model.config.model_dump(mode="json"),
            "seed": self.spec.seed,
            "version": version("nextsession"),
            "code": hashlib.sha256(Path(code).read_bytes()).hexdigest() if code else "",
        }
        text = json.dumps(decides, sort_keys=True).encode()
        return hashlib.sha256(text).hexdigest()[:16]

    def known(self, out: Path) -> Row | None:
        """Return the row that is there already; a failure only if it was for a budget that has not grown."""
        with suppress(ArtifactError):
            stem = out / _stem(self.spec.model, self.key)
            row = read_rows(stem.with_suffix(".json"))[0]
            row = replace(row, data=row.data | {"name": self.data})
            if row.failure is None:
                return row if stem.with_suffix(".npz").exists() else None
            had = row.cost.budget_cpu_s
            return row if row.over_budget and had and self.budget and self.budget <= had else None
        return None

    @property
    def checkpoints(self) -> Path | None:
        """Where training is kept."""
        folder = self.runtime.checkpoints
        return None if folder is None else Path(folder) / _stem(self.spec.model, self.key)

    def forget(self) -> None:
        """Remove what was kept of the training."""
        if self.checkpoints is not None:
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def run(self, out: Path, progress: Progress) -> Row:
        """Train, ask, save; whatever goes wrong becomes a row."""
        key, stem = self.key, out / _stem(self.spec.model, self.key)
        cost: dict[str, Any] = {"budget_cpu_s": self.budget}
        failure, report = None, None
        kept = self.checkpoints
        runtime = self.runtime.model_copy(
            update={"seed": self.spec.seed, "checkpoints": None if kept is None else str(kept)}
        )
        used = 0.0 if kept is None else cpu_seconds(state_of(kept, self.spec.model))
        _compile(self.model, self.split)
        forget_peak()
        try:
            with within(self.budget, used) as watch:
                try:
                    self.model.fit(
                        self.split.train,
                        validation=Blocks(self.split.validation),
                        runtime=runtime,
                        progress=progress,
                    )
                finally:
                    cost["fit_cpu_s"] = watch.seconds
                report = evaluate(self.model, self.split.test, self.settings, train=self.split.train, progress=progress)
            cost["answer_cpu_ms"] = report.facts["answer_cpu_ms"]
            cost["update_cpu_s"] = report.facts["update_cpu_s"]
            cost["bytes"] = _bytes_of(self.model, out)
        except OverBudgetError as error:
            failure, report = f"{OVER_BUDGET}: {error}; stopped after {watch.seconds:.1f}.", None
        except Exception as error:  # a model of someone else's may raise anything
            failure, report = f"{type(error).__name__}: {error}", None
        cost["peak_rss_mb"] = peak_memory()
        row = self._row(key, Cost(**cost), report, failure)
        if report is not None:
            report.save(stem.with_suffix(".npz"))
        write_rows(stem.with_suffix(".json"), [row])
        return row

    def _row(self, key: str, cost: Cost, report: Report | None, failure: str | None) -> Row:
        facts = dict(self.split.facts)
        measured: dict[str, Any] = {}
        if report is not None:
            content = report.to_dict()
            measured = {name: content[name] for name in ("metrics", "warm", "breakdown", "calibration")}
            measured["curve"] = self.model.learning_curve
            measured["questions"] = content["questions"] | {"skipped": report.facts["skipped"]}
        return Row(
            key=key,
            data={"name": self.data, **facts},
            protocol=self.protocol,
            model=self.spec.model,
            settings=self.model.config.model_dump(mode="json"),
            seed=self.spec.seed,
            reads_clock=type(self.model).reads_clock,
            cost=cost,
            failure=failure,
            versions=_versions(),
            commit=_commit(),
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            **measured,
        )


def _compile(model: Recommender[Any], split: Split) -> None:
    """Let the model learn and answer a little, so that no compiling is counted as its cost."""
    with suppress(Exception):  # if it fails here it fails again where that is reported
        few = split.train.rows(0, min(_WARM_UP_USERS, len(split.train)))
        once = {"epochs": 1} if "epochs" in type(model.config).model_fields else {}
        again = type(model)(model.config.model_copy(update=once)).fit(few)
        cases = next(iter(split.test()))
        for told in (cases.news, cases.held):
            if told is not None and again.can_update:
                again.update(told.rows(0, min(_WARM_UP_USERS, len(told))))
        again.rank(cases.rows(0, min(8, len(cases))), k=1)


def _with_differences(rows: list[Row], out: Path) -> list[Row]:
    """Give each row its difference from the best, and the best its difference from the second."""
    measured = [row for row in rows if row.failure is None and row.model not in REFERENCES]
    if len(measured) < 2:
        return rows
    first = next(iter(measured[0].metrics))
    ranking = sorted(measured, key=lambda row: -row.metrics[first]["mean"])
    reports = {row.key: Report.load(out / f"{_stem(row.model, row.key)}.npz") for row in ranking}
    found: dict[str, list[Difference]] = {}
    for row in ranking:
        other = ranking[1] if row is ranking[0] else ranking[0]
        differences = reports[row.key].compare(reports[other.key])
        found[row.key] = [Difference(other.title, name, e.mean, e.low, e.high) for name, e in differences.items()]
    return [replace(row, differences=found.get(row.key, [])) for row in rows]


def _bytes_of(model: Recommender[Any], out: Path) -> int:
    with tempfile.TemporaryDirectory(dir=out) as folder:
        model.save(Path(folder) / "model")
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def _stem(model: str, key: str) -> str:
    return f"{model}-{key}"


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("nextsession", "numpy", "numba", "scipy")}
    with suppress(PackageNotFoundError):
        packages["torch"] = version("torch")
    return {"python": platform.python_version(), **packages}


def _commit() -> str | None:
    """Return the commit of the checkout that this file is part of, if it is part of one."""
    here = Path(__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True, check=True, timeout=10
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    return git("describe", "--always", "--dirty") if git("ls-files", "--error-unmatch", here.name) else None
