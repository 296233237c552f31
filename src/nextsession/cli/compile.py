"""`nextsession compile`: a network written down, to be served without torch."""

import time
from pathlib import Path
from typing import Annotated

import typer

from nextsession.cli.terminal import Json, examples, show, show_json

EXAMPLES = examples(
    "nextsession compile runs/sasrec",
    "nextsession compile runs/hstu --tolerance 1e-5 --json",
)


def compile_network(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A network that `fit` wrote.")],
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", min=0.0, help="How far queries and scores may lie apart, in parts of the largest."),
    ] = 1e-4,
    json: Json = False,
) -> None:
    """Write a network down as a graph for ONNX Runtime, and keep it beside the model.

    `nextsession serve` then answers without torch: it is ready sooner, and its processes share the
    vectors of the items.  The graph is asked 200 histories of all kinds first; if it answers otherwise
    than the network, nothing is kept, and the server goes on with torch.
    """
    from nextsession.compiling import compile_model
    from nextsession.registry import load
    from nextsession.runtime.kept import FOLDER

    began = time.process_time()
    model = load(artifact)
    found = compile_model(model, artifact, tolerance=tolerance)
    spent = time.process_time() - began
    if json:
        show_json(
            {
                "artifact": str(artifact),
                "model": model.name,
                "items": len(model.vocabulary_),
                "histories": found.histories,
                "query_difference": found.query,
                "score_difference": found.score,
                "same_lists": found.same,
                "cpu_s": spent,
            }
        )
    else:
        alike = f"queries differ by {found.query:.1e} at most, {found.same:.1%} of {found.histories} lists are the same"
        show(f"{model.name}: {alike}, {spent:.1f} CPU-s -> {artifact / FOLDER}")
