"""`nextsession demo`: from nothing to a table, a report and a live page, in a minute or two."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextsession.cli import compare, window
from nextsession.cli.request import agree_showing
from nextsession.cli.terminal import Json, bars, examples, remark
from nextsession.errors import NextSessionError

if TYPE_CHECKING:
    from nextsession.data.dataset import DataSet

EXAMPLES = examples(
    "nextsession demo",
    "nextsession demo --out runs/first --port 8000",
    "nextsession demo --no-serve  # for scripts: ends with the report",
)

_MODELS = ("popular", "recent", "sessionpopular", "markov", "associationrules", "sequentialrules")
_MORE = ("itemknn", "vsknn", "stan", "vmisknn")

_SETS: dict[str, dict[str, Any]] = {
    "rsc15-100k": {"split": {"protocol": "prefixes"}},
    "ml-latest-small": {"split": {"test": "365d"}, "evaluation": {"exclude": "history"}},
}
"""Small sets, in the order of choice, and how each is split."""

_TO_FETCH = "ml-latest-small"


def demo(
    out: Annotated[Path, typer.Option("--out", help="A folder for rows and reports.")] = Path("runs/demo"),
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve two models with their page.")] = True,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the page; 0 chooses a free one.")] = 0,
    json: Json = False,
) -> None:
    """Find or fetch a small real data set, compare ten models on it, show the table, and serve two with their page.

    Without a network and without a set at hand, a simulated shop takes its place, and is named so.  With
    `--json` nothing is served: whoever reads the table is a program, and waits for the end.
    """
    from nextsession.experiment import Experiment

    started = time.perf_counter()
    tables = _data()
    remark(f"Comparing {len(_MODELS + _MORE)} models; the first time, their loops are compiled, which takes a while.")
    experiment = Experiment.read({**tables, "models": [*_MODELS, *_MORE, *_oracle(tables)]})
    with bars() as progress:
        rows, place = compare.run(experiment, out, progress=progress)
    compare.show_rows(rows, place, as_json=json)
    remark(f"{time.perf_counter() - started:.0f} s. Next, with a log of your own: nextsession data describe LOG")
    if compare.broken(rows):
        raise typer.Exit(1)
    if serve and not json:
        window.serve_two(experiment, window.best(rows, _MODELS + _MORE), out, port)


def _data() -> dict[str, Any]:
    """Choose the data: a small set at hand, one that can be fetched, else the shop."""
    from nextsession.data.sets import get

    for name, tables in _SETS.items():
        chosen = get(name)
        if chosen.locate() is not None:
            remark(f"Data: {chosen.title}. Terms: {chosen.licence}")
            return {"data": {"set": name}, **tables}
    if _fetched(get(_TO_FETCH)):
        return {"data": {"set": _TO_FETCH}, **_SETS[_TO_FETCH]}
    remark("Data: a SIMULATED shop, for no real set is at hand and none could be fetched.")
    return {"data": {"shop": {"users": 600, "items": 1200}}, "split": {"test": "7d"}}


def _fetched(chosen: "DataSet") -> bool:
    try:
        with bars() as progress:
            chosen.fetch(agree=agree_showing, progress=progress)
    except (NextSessionError, OSError) as error:
        remark(f"{chosen.name} could not be fetched: {error}")
        return False
    return True


def _oracle(tables: dict[str, Any]) -> list[dict[str, Any]]:
    """The model that knows the truth of the simulated shop, to show how well anybody could do."""
    shop = tables["data"].get("shop")
    return [] if shop is None else [{"name": "oracle", **shop}]
