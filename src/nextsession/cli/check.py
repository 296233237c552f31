"""`nextsession check`: hold a model to the contract."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextsession.cli.terminal import Json, bars, examples, show, show_json, show_table
from nextsession.errors import UnknownNameError

if TYPE_CHECKING:
    from nextsession.recommender import Recommender

EXAMPLES = examples("nextsession check markov", "nextsession check plugins/mine.py --json")


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A registered model, or a file that holds one.")],
    json: Json = False,
) -> None:
    """Hold a model, in each of its variants, to every promise of the contract; exit code 1 if one is broken."""
    from nextsession.registry import model_class
    from nextsession.testing.checks import misused_exemptions, outcomes

    model = _in_file(Path(name)) if name.endswith(".py") else model_class(name)
    with bars() as progress:
        found = list(outcomes(model, progress=progress))
    wrong = misused_exemptions(model)
    for needless in sorted(set(model.exemptions) - {o.name for o in found if o.broken}):
        wrong.append(f"{model.name}: {needless}: kept by every variant; remove the exemption.")
    broken = [o for o in found if o.broken and not o.exempted]
    if json:
        facts = [
            {"variant": str(o.subject), "promise": o.name, "kept": o.broken is None, "broken": o.broken}
            | {"exempted": o.exempted}
            for o in found
        ]
        show_json({"model": model.name, "kept": not broken and not wrong, "outcomes": facts, "exemptions": wrong})
    else:
        rows = []
        for promise, text in dict.fromkeys((o.name, o.promise) for o in found):
            of = [o for o in found if o.name == promise]
            failed = [o for o in of if o.broken and not o.exempted]
            exempted = any(o.broken and o.exempted for o in of)
            verdict = "BROKEN" if failed else "exempted" if exempted else "kept"
            rows.append([promise, verdict, f"{len(of) - len(failed)}/{len(of)}", text])
        show_table(["promise", "", "variants", "in words"], rows)
        for outcome in broken:
            show(str(outcome))
        for line in wrong:
            show(line)
        kept = len({o.name for o in found}) - len({o.name for o in broken})
        show(f"{model.name}: {kept} of {len({o.name for o in found})} promises kept.")
    if broken or wrong:
        raise typer.Exit(1)


def _in_file(path: Path) -> "type[Recommender[Any]]":
    """Import the model that a file holds."""
    from nextsession.recommender import Recommender

    if not path.is_file():
        raise UnknownNameError(f"There is no file {str(path)!r}.")
    sys.path.insert(0, str(path.parent.resolve()))
    module = importlib.import_module(path.stem)
    for thing in vars(module).values():
        if isinstance(thing, type) and issubclass(thing, Recommender) and thing.__module__ == module.__name__:
            return thing
    raise UnknownNameError(f"{path} defines no Recommender.")
