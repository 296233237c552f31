"""`nextsession replay`: a log played against a server."""

import os
from typing import Annotated

import typer

from nextsession.cli.request import agree, read_experiment
from nextsession.cli.terminal import Json, bars, examples, show, show_json
from nextsession.errors import ModelError

EXAMPLES = examples(
    "nextsession replay prepared/clicks http://127.0.0.1:8000",
    "nextsession replay clicks.parquet http://127.0.0.1:8000 --speed 60  # an hour in a minute",
)


def replay(
    log: Annotated[str, typer.Argument(metavar="LOG", help="A data set, a prepared directory, a file, or 'shop'.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="The server, such as http://127.0.0.1:8000.")],
    speed: Annotated[
        float | None, typer.Option("--speed", min=0.001, help="Times faster than it happened; as fast as it goes.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=1000, help="Events in one request.")] = 500,
    connections: Annotated[int, typer.Option("--connections", min=1, max=64, help="Requests at once.")] = 4,
    json: Json = False,
) -> None:
    """Send the events of a log to a server, in the order in which they happened.

    The server then knows what it would know had it been there.  A replay that was interrupted is begun
    again: what has arrived counts once.  A key is read from NEXTSESSION_KEY.
    """
    from nextsession.sources import open_source

    try:
        from nextsession.serving.replay import replay as play
    except ModuleNotFoundError as error:
        raise ModelError(f"A replay needs {error.name}: pip install 'nextsession[serve]'.") from None

    with bars() as progress:
        events = open_source(read_experiment(None, log, [], []), agree=agree, progress=progress).log
        done = play(
            events,
            url,
            speed=speed,
            key=os.environ.get("NEXTSESSION_KEY"),
            batch=batch,
            connections=connections,
            progress=progress,
        )
    facts = {
        "accepted": done.accepted,
        "duplicate": done.duplicate,
        "refused": done.refused,
        "reasons": list(done.reasons),
    }
    if json:
        show_json(facts)
    else:
        show(f"{done.accepted:,} events accepted, {done.duplicate:,} known already, {done.refused:,} refused")
        for reason in done.reasons:
            show(f"refused: {reason}")
