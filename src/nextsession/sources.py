"""The log of an experiment: from files, a named set, a prepared directory or the simulated shop.

Raw files are prepared once: what came of the same files and settings is found again in the cache.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from nextsession.config import Settings
from nextsession.data import sets
from nextsession.data.cases import Cases
from nextsession.data.cleaning import Clean, Cleaner
from nextsession.data.dataset import DataSet, Found
from nextsession.data.events import expand, read_events
from nextsession.data.fetch import cache_folder
from nextsession.data.format import Filters, Rejected, SessionRule
from nextsession.data.item_file import read_items
from nextsession.data.log import SessionLog
from nextsession.data.prepared import Prepared
from nextsession.data.prepared import prepare as prepare_events
from nextsession.data.shop import Shop
from nextsession.errors import ArtifactError, ConfigError, DataError
from nextsession.experiment import Experiment
from nextsession.progress import Progress, silent
from nextsession.splits import Split, split

Agree = Callable[[str], bool]
"""Shown the terms of a data set; says whether it may be fetched."""

_FEW = 5


@dataclass(frozen=True, eq=False)
class Source:
    """The log of an experiment."""

    name: str
    """What tables call it."""
    log: SessionLog
    questions: Cases | None = None
    """Questions that come with it, for the protocol `prefixes`."""
    facts: Mapping[str, Any] | None = None
    """How it was prepared: the manifest."""


def open_source(experiment: Experiment, *, agree: Agree | None = None, progress: Progress = silent) -> Source:
    """Read the log of an experiment, preparing it where that has not been done yet.

    Args:
        experiment: Its tables `data`, `sessions` and `filters` are read.
        agree: If given, a set that is nowhere at hand is fetched, once this agrees to its terms.
        progress: Told how far the work has come.

    Raises:
        DataError: The data are missing or not what they should be.
        ArtifactError: A prepared log is damaged.
        UnknownNameError: There is no data set of that name.
    """
    data = experiment.data
    if data.shop is not None:
        return Source("shop", Shop(data.shop).log())
    if data.prepared is not None:
        prepared = Prepared.load(data.prepared)
    else:
        prepared = prepare(experiment, agree=agree, progress=progress)
    name = data.set or Path(data.prepared or _paths(experiment)[0]).name
    return Source(name, prepared.log, prepared.questions, prepared.manifest)


def open_split(
    experiment: Experiment, *, agree: Agree | None = None, progress: Progress = silent
) -> tuple[Source, Split]:
    """Read the log of an experiment and split it; see `open_source`."""
    source = open_source(experiment, agree=agree, progress=progress)
    questions = source.questions if experiment.split.protocol == "prefixes" else None
    return source, split(source.log, experiment.split, questions)


def prepare(
    experiment: Experiment,
    out: Path | None = None,
    *,
    agree: Agree | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Prepare the files or the set of an experiment.

    Args:
        experiment: Its tables `data`, `sessions` and `filters` are read.
        out: Where to write; by default into the cache, from which it comes at once the next time.
        agree: See `open_source`.
        progress: Told how far the work has come.

    Raises:
        DataError: The data are missing or not what they should be.
        ConfigError: The experiment names neither files nor a set.
    """
    data, sessions, filters = experiment.data, experiment.sessions, experiment.filters
    if data.set is not None:
        return sets.get(data.set).prepare(
            out, sessions=sessions, filters=filters, bad_rows=data.bad_rows, agree=agree, progress=progress
        )
    paths = _paths(experiment)
    sessions, filters = sessions or SessionRule(), filters or Filters()
    if out is None:
        beside = [] if data.items is None else [data.items.path]
        key = _key([*paths, *beside], data.bad_rows, data.format, data.items, sessions, filters)
    place = out or cache_folder() / "prepared" / f"log-{key}"
    if out is None and place.exists():
        try:
            return Prepared.load(place)
        except ArtifactError:  # damaged, or of another version: made again below
            pass
    return prepare_events(
        read_events(paths, data.format, progress=progress),
        place,
        form=data.format,
        sessions=sessions,
        filters=filters,
        bad_rows=data.bad_rows,
        item_table=None if data.items is None else partial(read_items, data.items),
        progress=progress,
    )


@dataclass(frozen=True)
class Preview:
    """What would be read, before anything is written."""

    files: list[tuple[Path, int]]
    """Each with its size in bytes."""
    settings: dict[str, Settings]
    """`format`, `sessions` and `filters`."""
    rows: list[dict[str, Any]]
    """The first usable rows, by the part each column plays."""
    rejected: list[Rejected]
    """Rows among the first that cannot be used."""


def preview(experiment: Experiment) -> Preview:
    """Look at the files of an experiment and at their first rows; nothing is written.

    Raises:
        DataError: The data are missing, or a column is.
        ConfigError: The experiment names neither files nor a set.
    """
    data = experiment.data
    if data.set is not None:
        chosen = sets.get(data.set)
        found = _found(chosen)
        form, rule, files = found.layout.form, found.layout.sessions, list(found.files)
        filters = chosen.filters
        batches = found.layout.read(found.files, form, silent)
    else:
        paths = _paths(experiment)
        files, form, rule, filters = expand(paths), data.format, SessionRule(), Filters()
        batches = read_events(paths, form)
    rule, filters = experiment.sessions or rule, experiment.filters or filters
    first = next((batch for batch in batches if len(batch.frame) or batch.rejected), None)
    clean = None if first is None else Cleaner(form, session=rule.by == "id").clean(first)
    return Preview(
        [(file, 0 if str(file) == "-" else file.stat().st_size) for file in files],
        {"format": form, "sessions": rule, "filters": filters},
        [] if clean is None else _first_rows(clean),
        [] if first is None or clean is None else [*first.rejected, *clean.rejected][:_FEW],
    )


def _found(chosen: DataSet) -> Found:
    found = chosen.locate()
    if found is None:
        raise DataError(chosen.missing())
    return found


def _paths(experiment: Experiment) -> list[str]:
    path = experiment.data.path
    if path is None:
        raise ConfigError("There is nothing to prepare: name files or a data set.")
    return [path] if isinstance(path, str) else list(path)


def _key(paths: list[str], *settings: Any) -> str:
    """Return a short name for what would come of these files and settings."""
    if "-" in paths:
        raise ConfigError("What is read from stdin cannot be found again in the cache: prepare it with --out first.")
    files = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in expand(paths)]
    plain = [s.model_dump(mode="json") if isinstance(s, Settings) else s for s in settings]
    decides = [version("nextsession"), files, plain]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]


def _first_rows(clean: Clean) -> list[dict[str, Any]]:
    columns: dict[str, Any] = {"user": clean.user, "session": clean.session, "item": clean.item}
    if clean.times is not None:
        columns["time"] = pl.Series(clean.times[:_FEW]).cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%d %H:%M:%S%.3f UTC")
    if clean.labels is not None:
        columns["label"] = clean.labels
    columns |= {"action": clean.action, **clean.features}
    shown = {name: list(column[:_FEW]) for name, column in columns.items() if column is not None}
    return [
        {name: x.item() if hasattr(x, "item") else x for name, x in zip(shown, row, strict=True)}
        for row in zip(*shown.values(), strict=True)
    ]
