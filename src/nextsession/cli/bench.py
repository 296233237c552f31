"""`nextsession bench`: every model on every benchmark set at hand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextsession.cli import compare
from nextsession.cli.terminal import Json, bars, examples, remark, show_json, show_table
from nextsession.errors import ConfigError, NextSessionError

if TYPE_CHECKING:
    from nextsession.experiment import Experiment

EXAMPLES = examples(
    "nextsession bench", "nextsession bench recipes/rsc15-100k.toml --budget 600", "nextsession bench --quick"
)

_QUICK_USERS = 200
_QUICK_SECONDS = 60.0


def bench(
    recipes: Annotated[
        list[Path] | None, typer.Argument(metavar="RECIPE.toml", help="All of the folder recipes/ if none.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="200 users, 60 CPU-seconds a model; rows go to runs/bench-quick."),
    ] = False,
    budget: Annotated[
        float, typer.Option("--budget", metavar="SECONDS", help="Most CPU-seconds for one model.")
    ] = 1800.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder for the rows; benchmarks/results if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare every registered model on every recipe whose data are at hand; keep the rows as JSON.

    A recipe that names networks is run as it is.  What is there already is not made again.  Recipes
    whose data are missing are named and passed over.
    """
    from nextsession.rows import write_rows

    files = recipes or sorted(p for p in Path("recipes").glob("*.toml") if p.stem != "start")
    if not files:
        raise ConfigError("There is no recipe: run this in a folder that holds recipes/, or name a recipe.")
    place = out or Path("runs/bench-quick" if quick else "benchmarks/results")
    experiments = {file.stem: _with_others(_recipe(file, quick)) for file in files}
    results: list[dict[str, Any]] = []
    failures: list[str] = []
    limit = min(budget, _QUICK_SECONDS) if quick else budget
    for name, experiment in experiments.items():
        results.append({"recipe": name, "rows": None})
        if not _at_hand(experiment):
            remark(f"{name}: passed over, its data are not at hand")
            continue
        work = Path("runs") / ("bench-quick" if quick else "bench") / name
        try:
            with bars() as progress:
                rows, _ = compare.run(experiment, work, budget=limit, progress=progress)
        except NextSessionError as error:
            failures.append(f"{name}: {error}")
            continue
        write_rows(place / f"{name}.json", rows)
        remark(f"{name}: {len(rows)} rows -> {place / f'{name}.json'}")
        results[-1]["rows"] = [row.to_dict() for row in rows]
        failures += [f"{name}: {row.model}: {row.failure}" for row in compare.broken(rows)]
    if json:
        show_json(results)
    else:
        _show(results)
    for failure in failures:
        remark(failure)
    if failures:
        raise typer.Exit(1)


def _recipe(file: Path, quick: bool) -> "Experiment":
    from nextsession.experiment import Experiment

    experiment = Experiment.load(file)
    if not quick:
        return experiment
    fewer = [f"split.users={_QUICK_USERS}"] if "users" in experiment.split.in_force() else []
    return Experiment.load(file, ["evaluation.bootstrap=100", *fewer])


def _with_others(experiment: "Experiment") -> "Experiment":
    """Add every other model, unless the recipe is one of networks: those say themselves what stands beside them."""
    from nextsession.registry import model_class

    if any(model_class(model.name).by_recipe for model in experiment.models):
        return experiment
    return compare.with_every_model(experiment)


def _at_hand(experiment: "Experiment") -> bool:
    from nextsession.data import sets

    return experiment.data.set is None or sets.get(experiment.data.set).locate() is not None


def _show(results: list[dict[str, Any]]) -> None:
    cells = []
    for result in results:
        measured = [row for row in result["rows"] or () if row["metrics"] and row["model"] != "oracle"]
        if not measured:
            continue
        metric = next(iter(measured[0]["metrics"]))
        best = max(measured, key=lambda row: row["metrics"][metric]["mean"])
        cells.append([result["recipe"], len(result["rows"]), best["model"], metric])
        cells[-1].append(f"{best['metrics'][metric]['mean']:.4f}")
    if cells:
        show_table(["recipe", "models", "best", "by", "mean"], cells)
