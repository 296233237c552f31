"""`nextsession index`: an index of items beside a model, at a recall that was measured."""

import time
from pathlib import Path
from typing import Annotated, get_args

import typer

from nextsession.cli.terminal import Json, examples, show, show_json
from nextsession.errors import ConfigError

EXAMPLES = examples(
    "nextsession index runs/sasrec",
    "nextsession index runs/sasrec --kind pq  # less memory, more time for a list",
    "nextsession index runs/gru4rec --kind ivf --least-recall 0.99 --json",
)


def index(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A model that `fit` wrote.")],
    kind: Annotated[str, typer.Option("--kind", metavar="ivf|pq|hnsw|exact", help="How items are found.")] = "ivf",
    least_recall: Annotated[
        float, typer.Option("--least-recall", min=0.0, max=1.0, help="Share of the exact best 100 that is promised.")
    ] = 0.97,
    json: Json = False,
) -> None:
    """Build an index for a model of many items, measure what it finds, and keep it beside the model.

    The recall is measured on queries that the model itself makes of histories.  If less is found than
    promised, nothing is kept, and the server goes on looking at every item.
    """
    from nextsession.index.kept import Kind, build_index, save_index
    from nextsession.registry import load

    if kind not in get_args(Kind):
        raise ConfigError(f"--kind must be one of {', '.join(get_args(Kind))}, got {kind!r}.")
    model = load(artifact)
    began = time.process_time()
    made = build_index(model, kind, least_recall=least_recall)  # type: ignore[arg-type]
    save_index(made, artifact, least_recall=least_recall)
    spent = time.process_time() - began
    facts = {
        "artifact": str(artifact),
        "kind": kind,
        "items": len(model.vocabulary_),
        "recall": made.recall,
        "cpu_s": spent,
    }
    if json:
        show_json(facts)
    else:
        found = f"{len(model.vocabulary_):,} items, recall@100 {made.recall:.4f}"
        show(f"{kind}: {found}, {spent:.1f} CPU-s -> {artifact / 'index'}")
