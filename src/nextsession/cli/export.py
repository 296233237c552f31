"""`nextsession export`: the events of a server as a raw log, to learn from."""

from pathlib import Path
from typing import Annotated

import typer

from nextsession.cli.terminal import Json, examples, show, show_json
from nextsession.errors import ModelError

EXAMPLES = examples(
    "nextsession export runs/state events.jsonl",
    "nextsession export runs/state events.jsonl --shown --json",
    "nextsession export redis://store.internal:6379/0 events.jsonl",
)


def export(
    state: Annotated[str, typer.Argument(metavar="STATE", help="The folder or Redis that `serve --state` names.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: JSON lines.")],
    after: Annotated[int, typer.Option("--after", min=0, help="Go on after this place of the log.")] = 0,
    shown: Annotated[
        bool, typer.Option("--shown", help="Write the items that were listed, too, with label 0.")
    ] = False,
    erased: Annotated[
        Path | None, typer.Option("--erased", help="Also write who was erased and when (hashes of ids), as JSON.")
    ] = None,
    json: Json = False,
) -> None:
    """Write the events of a server as a raw log, while it runs.

    Read it with `nextsession data prepare OUT --user visitor --item item --time time --label label
    --label-value 1`.  Visitors who were erased are not in it; ids that were merged are one visitor.
    """
    try:
        from nextsession.serving.export import export as write
        from nextsession.serving.opening import open_reader
    except ModuleNotFoundError as error:
        raise ModelError(f"The store needs {error.name}: pip install 'nextsession[serve]'.") from None
    from json import dumps

    store = open_reader(state)
    facts = write(store, out, after=after, shown=shown)
    if erased is not None:
        stones = [{"sha256": stone.digest, "erased_at": stone.erased_at} for stone in store.tombstones()]
        erased.write_text(dumps(stones, indent=1) + "\n", encoding="utf-8")
    store.close()
    if json:
        show_json({**facts, "out": str(out)})
    else:
        show(f"{facts['rows']:,} rows -> {out}; go on with --after {facts['last']}")
