"""`nextsession data describe | fetch | sets | simulate` (`prepare` has a file of its own)."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextsession.cli.request import agree, agree_showing, data_table
from nextsession.cli.terminal import Json, Overrides, bars, examples, remark, show, show_json, show_table

if TYPE_CHECKING:
    from nextsession.data.shop import Shop

app = typer.Typer(
    help="Look at logs, prepare them, get public sets, simulate a shop.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command(
    epilog=examples("nextsession data describe clicks.parquet", "nextsession data describe globo --plots globo.png")
)
def describe(
    log: Annotated[str, typer.Argument(metavar="LOG|SET|PREPARED", help="A file, pattern, set, directory or 'shop'.")],
    plots: Annotated[
        Path | None, typer.Option("--plots", metavar="FILE", help="Draw it too: .png, .svg or .pdf.")
    ] = None,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Say what is in a log: sizes, spans, lengths, popularity, repeats, labels, the age of items.

    For raw files whose columns are not called user_id, item_id and timestamp, say how they are
    called: --set data.format.columns.item=product.
    """
    from nextsession.data.describe import describe as look
    from nextsession.experiment import Experiment
    from nextsession.sources import open_source

    experiment = Experiment.load(None, overrides or (), data=data_table(log))
    with bars() as progress:
        found = look(open_source(experiment, agree=agree, progress=progress).log)
    if json:
        show_json(found.to_dict())
    else:
        show(found.text())
    if plots is not None:
        remark(f"Drawn: {found.plots(plots)}")


@app.command(epilog=examples("nextsession data sets", "nextsession data sets --json"))
def sets(json: Json = False) -> None:
    """List the named data sets: what they are, their terms, whether they are at hand."""
    from nextsession.data import sets as known

    rows = []
    for name in known.names():
        one = known.get(name)
        found = one.locate()
        rows.append(
            {
                "name": name,
                "title": one.title,
                "at_hand": None if found is None else str(found.folder),
                "bytes": None if found is None else sum(file.stat().st_size for file in found.files),
                "can_be_fetched": bool(one.addresses),
                "licence": one.licence,
                "homepage": one.homepage,
            }
        )
    if json:
        show_json(rows)
        return
    cells = [[r["name"], r["title"], _at_hand(r), _size(r["bytes"]), r["licence"]] for r in rows]
    show_table(["set", "title", "at hand", "size", "terms"], cells)


@app.command(epilog=examples("nextsession data fetch ml-latest-small", "nextsession data fetch ml-1m --yes"))
def fetch(
    name: Annotated[str, typer.Argument(metavar="SET", help="Its name; `nextsession data sets` lists them.")],
    yes: Annotated[bool, typer.Option("--yes", help="Agree to the terms without being asked.")] = False,
    json: Json = False,
) -> None:
    """Get a public data set into the cache; its terms are shown first."""
    from nextsession.data.sets import get

    with bars() as progress:
        place = get(name).fetch(agree=agree_showing if yes else agree, progress=progress)
    if json:
        show_json({"set": name, "folder": str(place)})
    else:
        show(str(place))


@app.command(
    epilog=examples(
        "nextsession data simulate --events 1e6 --out shop.parquet",
        "nextsession data simulate --out small.parquet --set users=500 --set seed=3",
    )
)
def simulate(
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write.")],
    events: Annotated[
        float | None, typer.Option("--events", help="About so many events, shown and ignored ones included.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Every random choice is drawn from this.")] = 0,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Write the log of a simulated shop, which shows pages of items and is clicked or ignored."""
    from nextsession.data.shop import Shop, ShopSettings
    from nextsession.experiment import override

    values = {"seed": seed} if events is None else ShopSettings.sized(int(events), seed=seed).model_dump()
    for text in overrides or ():
        override(values, text)
    shop = Shop(ShopSettings.read(values, "shop"))
    with bars() as progress:
        written = shop.write(out, progress=progress)
    if json:
        show_json({"path": str(out), "events": written, "bytes": out.stat().st_size, "settings": _settings(shop)})
    else:
        show(f"{out}: {written:,} events, {out.stat().st_size:,} bytes")


def _settings(shop: "Shop") -> dict[str, Any]:
    return shop.settings.model_dump(mode="json")


def _at_hand(row: Mapping[str, object]) -> str:
    if row["at_hand"] is not None:
        return "yes"
    return "can be fetched" if row["can_be_fetched"] else "by hand"


def _size(size: object) -> str:
    return f"{size / 1e6:,.1f} MB" if isinstance(size, int) else ""
