"""`nextsession models`: what there is, and what it can be told."""

from typing import Annotated

import typer

from nextsession.cli.terminal import Json, examples, remark, show, show_json, show_table
from nextsession.errors import ModelError

EXAMPLES = examples("nextsession models", "nextsession models vsknn")


def models(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this model's settings.")] = None,
    json: Json = False,
) -> None:
    """List the models, or show what one does and its settings."""
    from nextsession.cli.catalogue import model_facts, setting_facts
    from nextsession.registry import model_class, names

    if name is not None:
        facts = model_facts(name)
        settings = setting_facts(model_class(name).settings_class)
        if json:
            show_json({**facts, "settings": [s.to_dict() for s in settings]})
            return
        show(f"{name}: {facts['about']}\n")
        if facts["details"]:
            show(f"{facts['details']}\n")
        show(f"Reference: {facts['reference'] or 'none'}")
        traits = {"reads the clock": facts["reads_clock"], "learns on": facts["learns_on"]}
        answers = "; ".join(f"{trait}: {_yes(answer)}" for trait, answer in traits.items())
        show(f"Made for: {facts['made_for']}; {answers}; draws random numbers: {_yes(facts['stochastic'])}")
        show_table(["setting", "type", "default", "what it is"], [s.cells() for s in settings])
        return
    found = []
    for each in names():
        try:
            found.append(model_facts(each))
        except ModelError as error:  # of another package; the others can still be listed
            remark(str(error))
    if json:
        show_json(found)
        return
    columns = ["model", "what it does", "made for", "reads the clock", "learns on"]
    rows = [[f["name"], f["about"], f["made_for"], _yes(f["reads_clock"]), _yes(f["learns_on"])] for f in found]
    show_table(columns, rows)


def _yes(value: object) -> str:
    return "yes" if value else "no"
