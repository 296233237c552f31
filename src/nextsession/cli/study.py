"""`nextsession study`: the tables and plots of the study of next-session prediction, each by one command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextsession.cli.request import data_table, open_split
from nextsession.cli.terminal import DryRun, Json, Overrides, bars, examples, show, show_json, show_table

if TYPE_CHECKING:
    from nextsession.study.run import Request
    from nextsession.study.summary import Summary

EXAMPLES = examples(
    "nextsession study overall --data ebnerd",
    "nextsession study alpha --data shop --set data.shop.users=500 --set study.epochs=10",
    "nextsession study scaling --data globo --dry-run",
)


def study(
    name: Annotated[
        str,
        typer.Argument(metavar="STUDY", help="overall, backbones, encoders, alpha, time, scaling, ablation or intent."),
    ],
    data: Annotated[
        str, typer.Option("--data", metavar="LOG", help="A data set, a prepared directory, a file, or 'shop'.")
    ] = "shop",
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="SECONDS", help="Most CPU-seconds for one training.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder for rows and reports; runs/study/<data> if not given.")
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Make again what is there already.")] = False,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make one table or plot of the study on any log: train what it compares, with several seeds, and write a page.

    overall: all models; backbones: GRU, Transformer, HSTU over sessions and over items; encoders: how sessions are
    pooled; alpha: the weight of the rank loss; time: quality against time of training; scaling: sizes of data and
    model, a law, and an extrapolation written before it is checked; ablation: what each part of the model is
    worth; intent: shops that differ only in how long a wish lasts.

    What is there already is not made again, and studies of one log share it. Sizes and budgets of all networks are
    set by study.NAME, such as study.epochs=20; --dry-run shows them all. Rows that know the instant of the
    question (◷) have a column of their own.
    """
    from nextsession.study.run import read

    request = read(name, data_table(data), overrides or ())
    if dry_run:
        _plan(request, as_json=json)
        return
    from nextsession.study.page import write_page
    from nextsession.study.run import carry_out

    with bars() as progress:
        source, split = open_split(request.experiment, progress)
        place = out or Path("runs") / "study" / source.name
        summary = carry_out(
            request, split, data=source.name, out=place, budget=budget, resume=not anew, progress=progress
        )
    page = write_page(summary, place / f"{name}.html")
    if json:
        show_json({"report": str(page), "summary": str(place / f"{name}.json")})
    else:
        _show(summary)
        show(f"Report: {page}")
    if any(model.failure for model in summary.models):
        raise typer.Exit(1)


def _plan(request: "Request", *, as_json: bool) -> None:
    """Say what would be trained; whether the log has times and exposures is only known once it is read."""
    from nextsession.study.plans import Known, arms, named
    from nextsession.study.run import specs

    shop = request.experiment.data.shop
    if request.study == "scaling":
        from nextsession.study.scaling import grid

        cells, last = grid(request.settings)
        names = [cell.name for cell in (*cells, last)]
        lines = [[name, "sessionrec", request.settings.seeds] for name in names]
    elif request.study == "intent":
        chosen = arms("intent", request.settings, Known(True, True))
        lines = [
            [named(arm, lasts), arm.model, request.settings.seeds]
            for lasts in request.settings.lasting
            for arm in chosen
        ]
    else:
        assumed = Known(True, True, None if shop is None else shop.model_dump(mode="json"))
        chosen = arms(request.study, request.settings, assumed)
        often = [name for name, _ in specs(chosen, request.settings.seeds)]
        lines = [[arm.name + (" ◷" if arm.timed else ""), arm.model, often.count(arm.name)] for arm in chosen]
    if as_json:
        show_json({
            "study": request.study, "settings": request.settings.model_dump(mode="json"),
            "experiment": request.experiment.tables(), "trainings": lines,
        })  # fmt: skip
        return
    show(request.experiment.toml())
    show_table(["study setting", "value"], request.settings.model_dump(mode="json").items())
    show_table(["model", "of", "trainings"], lines, title="Trained if the log has times and says what was ignored")


def _show(summary: "Summary") -> None:
    from nextsession.study.tables import cells

    for title, head, lines in cells(summary):
        show_table(head, lines, title=title)
