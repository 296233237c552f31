"""`nextsession compare`: many models on the same questions, one table, one page."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextsession.cli.request import Data, ExperimentFile, open_split, read_experiment
from nextsession.cli.terminal import DryRun, Json, Overrides, bars, examples, remark, show, show_json, show_table
from nextsession.errors import ConfigError, DataError, ModelError

if TYPE_CHECKING:
    from nextsession.experiment import Experiment
    from nextsession.progress import Progress
    from nextsession.rows import Row

EXAMPLES = examples(
    "nextsession compare recipes/ml-latest-small.toml",
    "nextsession compare --data clicks.parquet --models popular,recent,markov,vsknn --budget 60",
    "nextsession compare recipes/globo-temporal.toml --all --set split.users=2000",
    "nextsession compare recipes/ml-1m-neural.toml --checkpoints runs/checkpoints",
)

_TOP = 10


def compare(
    experiment: ExperimentFile = None,
    data: Data = None,
    models: Annotated[
        str | None, typer.Option("--models", metavar="A,B,C", help="The models, in place of the file's.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every registered model, those of the file with its settings.")
    ] = False,
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="SECONDS", help="Most CPU-seconds for one model.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder for rows and reports; runs/compare-<data> if not given.")
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Make again what is there already.")] = False,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            "--checkpoints", metavar="FOLDER", help="Keep training of networks here; go on with what is there."
        ),
    ] = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Learn and measure many models on one split; write rows (JSON), a table (Markdown) and a page (HTML).

    What is there already is not made again, so an interrupted comparison goes on where it stopped.
    Exit code 1 if a model failed (over its budget, or made for other data, is no failure); the others stand.
    """
    if models is not None and every:
        raise ConfigError("Give either --models or --all, not both.")
    if budget is not None and not budget > 0:
        raise ConfigError(f"--budget must be more than 0 CPU-seconds, got {budget}.")
    if checkpoints is not None:
        overrides = [*(overrides or ()), f"runtime.checkpoints={dumps(checkpoints)}"]
    names = [name.strip() for name in (models or "").split(",") if name.strip()]
    wanted = read_experiment(experiment, data, names, overrides)
    if every:
        wanted = with_every_model(wanted)
    if not wanted.models:
        raise ConfigError("There is nothing to compare: name models with --models a,b,c or --all.")
    if dry_run:
        show_json(wanted.tables()) if json else show(wanted.toml())
        return
    with bars() as progress:
        rows, place = run(wanted, out, budget=budget, resume=not anew, progress=progress)
    show_rows(rows, place, as_json=json)
    if broken(rows):
        raise typer.Exit(1)


def broken(rows: Sequence["Row"]) -> list["Row"]:
    """Return the rows of models that failed; to need more than the budget or other data is no failure."""
    return [
        row
        for row in rows
        if row.failure and not row.over_budget and not row.failure.startswith(f"{DataError.__name__}:")
    ]


def with_every_model(experiment: "Experiment") -> "Experiment":
    """Return the experiment with every registered model that it does not name, at its defaults.

    Models that learn for as long as a recipe says (`by_recipe`) are left out, and those that cannot
    be imported: they are there if they are named.
    """
    from nextsession.experiment import ModelChoice
    from nextsession.registry import model_class, names

    named = {model.name for model in experiment.models}
    others: list[str] = []
    for name in names():
        with suppress(ModelError):
            if name not in named and not model_class(name).by_recipe:
                others.append(name)
    more = tuple(ModelChoice.of(name) for name in others)
    return experiment.model_copy(update={"models": experiment.models + more})


def run(
    experiment: "Experiment",
    out: Path | None,
    *,
    budget: float | None = None,
    resume: bool = True,
    progress: "Progress",
) -> tuple[list["Row"], Path]:
    """Compare the models of an experiment and write everything; return the rows and the folder."""
    from nextsession.comparison import ModelSpec
    from nextsession.comparison import compare as learn_and_measure
    from nextsession.files import whole_file
    from nextsession.report import write_html, write_markdown

    source, parts = open_split(experiment, progress)
    place = out or Path("runs") / f"compare-{source.name}"
    seed = experiment.runtime.seed
    specs = [ModelSpec(model.name, model.settings.model_dump(mode="json"), seed) for model in experiment.models]
    rows = learn_and_measure(
        parts,
        specs,
        experiment.evaluation,
        out=place,
        budget=budget,
        data=source.name,
        resume=resume,
        runtime=experiment.runtime,
        progress=progress,
    )
    with whole_file(place / "experiment.toml") as scratch:
        scratch.write_text(experiment.toml(), encoding="utf-8")
    today = datetime.now(UTC).date().isoformat()
    write_markdown(rows, place / "report.md")
    write_html(rows, place / "report.html", when=today, facts=_facts(source.facts))
    return rows, place


def show_rows(rows: Sequence["Row"], place: Path, *, as_json: bool) -> None:
    """Show the top of the table and where the page is."""
    page = place / "report.html"
    if as_json:
        show_json({"report": str(page), "rows": [replace(row).to_dict() for row in rows]})
        return
    from nextsession.report.leaderboard import Leaderboard

    board = Leaderboard(rows)
    metrics = board.shown[:4]
    cells = []
    ranked = [entry for entry in board.measured if entry.place is not None]
    beside = [entry for entry in board.measured if entry.place is None]  # the oracle
    for entry in [*ranked[:_TOP], *beside]:
        means = ["" if (mean := entry.mean(name)) is None else f"{mean:.4f}" for name in metrics]
        cost = entry.row.cost
        name = entry.name + (" ◷" if entry.row.reads_clock else "")
        cells.append(["" if entry.place is None else entry.place, name, *means, _number(cost.fit_cpu_s, 1)])
        cells[-1].append(_number(cost.answer_cpu_ms, 3))
    if cells:
        show_table(["", "model", *metrics, "fit CPU-s", "answer CPU-ms"], cells)
    if len(ranked) > _TOP:
        show(f"and {len(ranked) - _TOP} more")
    for entry in board.failures:
        show(f"{entry.name}: {entry.row.failure}")
    if any(entry.row.reads_clock for entry in board.measured):
        remark("◷ reads the instant of the question")
    show(f"Report: {page}")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _facts(manifest: Any) -> dict[str, Any]:
    """Return what a page says of how the log was prepared."""
    if not manifest:
        return {}
    return {name: manifest[name] for name in ("counts", "filters", "quarantined", "notes") if manifest.get(name)}
