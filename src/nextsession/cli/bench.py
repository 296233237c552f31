"""`nextsession bench`: every model on every benchmark set at hand."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nextsession.cli import compare
from nextsession.cli.terminal import Json, bars, examples, remark, show, show_json, show_table
from nextsession.errors import ConfigError

EXAMPLES = examples(
    "nextsession bench", "nextsession bench recipes/rsc15-100k.toml --budget 600", "nextsession bench --quick"
)

_QUICK = ("split.users=200", "evaluation.bootstrap=100")


def bench(
    recipes: Annotated[
        list[Path] | None, typer.Argument(metavar="RECIPE.toml", help="All of the folder recipes/ if none.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="200 users a recipe, 60 CPU-seconds a model; results go to runs/bench-quick."),
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

    What is there already is not made again.  Recipes whose data are missing are named and passed over.
    """
    from nextsession.experiment import Experiment
    from nextsession.rows import write_rows

    files = recipes or sorted(p for p in Path("recipes").glob("*.toml") if p.stem != "start")
    if not files:
        raise ConfigError("There is no recipe: run this in a folder that holds recipes/, or name a recipe.")
    place = out or Path("runs/bench-quick" if quick else "benchmarks/results")
    results: list[dict[str, Any]] = []
    for file in files:
        experiment = compare.with_every_model(Experiment.load(file, _QUICK if quick else ()))
        if not _at_hand(experiment):
            remark(f"{file.stem}: passed over, its data are not at hand")
            results.append({"recipe": file.stem, "rows": None})
            continue
        work = Path("runs") / ("bench-quick" if quick else "bench") / file.stem
        with bars() as progress:
            rows, _ = compare.run(experiment, work, budget=min(budget, 60.0) if quick else budget, progress=progress)
        write_rows(place / f"{file.stem}.json", rows)
        remark(f"{file.stem}: {len(rows)} rows -> {place / f'{file.stem}.json'}")
        results.append({"recipe": file.stem, "rows": [row.to_dict() for row in rows]})
    if json:
        show_json(results)
    else:
        _show(results)
    failed = [
        r for result in results for r in result["rows"] or () if r["failure"] and "Over budget" not in r["failure"]
    ]
    if failed:
        for row in failed:
            show(f"{row['data']['name']}: {row['model']}: {row['failure']}")
        raise typer.Exit(1)


def _at_hand(experiment: Any) -> bool:
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
