"""What commands are asked about: an experiment file, or data and models named on the line."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from nextsession.cli.terminal import remark
from nextsession.errors import ConfigError, DataError, suggestion

if TYPE_CHECKING:
    from nextsession.experiment import Experiment
    from nextsession.progress import Progress
    from nextsession.sources import Source
    from nextsession.splits import Split

ExperimentFile: TypeAlias = Annotated[
    Path | None, typer.Argument(metavar="EXPERIMENT.toml", help="An experiment file; - reads it from stdin.")
]
Data: TypeAlias = Annotated[
    str | None,
    typer.Option("--data", metavar="LOG", help="A data set, a prepared directory, a file, a pattern, or 'shop'."),
]


def read_experiment(
    file: Path | None, data: str | None, models: Sequence[str], overrides: Sequence[str] | None
) -> "Experiment":
    """Read an experiment file, or make an experiment of what the line names.

    Raises:
        ConfigError: Neither a file nor data are named, or a setting is wrong.
    """
    from nextsession.experiment import Experiment

    tables: dict[str, Any] = {}
    if data is not None:
        tables["data"] = data_table(data)
    if models:
        tables["models"] = list(models)
    if file is None and data is None and not any(text.startswith("data.") for text in overrides or ()):
        raise ConfigError("Name an experiment file, or the data with --data.")
    return Experiment.load(file, overrides or (), **tables)


def data_table(name: str) -> dict[str, Any]:
    """Say what a name stands for: a prepared directory, a data set, the simulated shop, or files.

    Raises:
        DataError: Nothing of that name is known.
    """
    from nextsession.data import sets

    if (Path(name) / "manifest.json").is_file():
        return {"prepared": name}
    if name in sets.names():
        return {"set": name}
    if name == "shop":
        return {"shop": {}}
    if name == "-" or Path(name).exists() or any(mark in name for mark in "*?["):
        return {"path": name}
    raise DataError(
        f"There is no file, prepared directory or data set {name!r}.{suggestion(name, sets.names())} "
        "`nextsession data sets` lists the sets."
    )


def open_split(experiment: "Experiment", progress: "Progress") -> tuple["Source", "Split"]:
    """Read the log of an experiment and split it; ask for consent to terms, and say what is odd about the parts."""
    from nextsession import sources

    source, parts = sources.open_split(experiment, agree=agree, progress=progress)
    if "remark" in parts.facts:
        remark(parts.facts["remark"])
    return source, parts


def agree(terms: str) -> bool:
    """Show the terms of a data set and ask the person; without a terminal the answer is no."""
    import sys

    if not sys.stdin.isatty():
        return False
    typer.echo(terms, err=True)
    return typer.confirm("Fetch it under these terms?", default=False, err=True)


def agree_showing(terms: str) -> bool:
    """Show the terms of a data set and go on."""
    remark(terms)
    return True
