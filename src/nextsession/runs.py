"""A fitted model on disk beside the experiment it came of.

```
runs/markov/
├── manifest.json  arrays.safetensors  vocabulary.arrow     see `nextsession.artifacts`
├── golden.json                                             questions and answers, see `nextsession.golden`
├── item_table.arrow                                        titles and features of the items, if there are any
├── popularity.npy                                          how often each item was wanted in what it learnt from
└── experiment.toml                                         resolved: every setting, given or not
```

`nextsession fit runs/markov/experiment.toml` repeats it.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from nextsession.artifacts import read_manifest
from nextsession.data.log import SessionLog
from nextsession.data.storage import write_item_table
from nextsession.errors import ArtifactError, ConfigError
from nextsession.experiment import Experiment
from nextsession.files import whole_directory
from nextsession.golden import write_golden
from nextsession.popularity import write_popularity
from nextsession.recommender import Recommender
from nextsession.splits import Split

_EXPERIMENT = "experiment.toml"


def check_place(place: Path) -> None:
    """Make sure that a model may be written to `place`: nothing is there, or a model.

    Raises:
        ArtifactError: Something else is there.
    """
    if place.exists() and not (place.is_dir() and _is_model(place)):
        raise ArtifactError(f"{place} exists and is not a saved model; choose another place or remove it.")


def save_run(
    place: Path,
    model: Recommender[Any],
    experiment: Experiment,
    learnt_from: Literal["train", "everything"],
    *,
    log: SessionLog,
) -> None:
    """Write a fitted model and its experiment, whole or not at all.

    Args:
        place: The directory.
        model: The model.
        experiment: What it came of.
        learnt_from: The training part of the log, or all of it.
        log: That log: what it knows of items, and how often each was wanted, is kept beside the model.

    Raises:
        ArtifactError: Something that is no saved model stands at `place`.
    """
    check_place(place)
    with whole_directory(place) as scratch:
        inner = scratch / "model"
        model.save(inner, notes={"learnt_from": learnt_from, "experiment": experiment.tables()})
        for file in inner.iterdir():
            file.rename(scratch / file.name)
        inner.rmdir()
        write_golden(model, scratch)
        if log.item_table is not None:
            items = log.item_table.take(log.vocabulary.encode(model.vocabulary_.ids))
            write_item_table(scratch / "item_table.arrow", items)
        write_popularity(scratch, log, model.vocabulary_)
        (scratch / _EXPERIMENT).write_text(experiment.toml(), encoding="utf-8")


def stored_experiment(place: Path, instead: Path | None = None, overrides: Iterable[str] = ()) -> Experiment:
    """Return the experiment that lies beside a model, or the one at `instead`.

    Raises:
        ArtifactError: There is no model at `place`.
        ConfigError: There is no experiment beside it, or a setting is wrong.
    """
    read_manifest(place)
    if instead is None and not (place / _EXPERIMENT).is_file():
        raise ConfigError(f"{place} has no {_EXPERIMENT}; name the experiment to evaluate it by.")
    return Experiment.load(instead or place / _EXPERIMENT, overrides)


def check_unseen(place: Path, model: Recommender[Any], split: Split, experiment: Experiment) -> None:
    """Make sure that a model has not learnt from the events it will be asked about.

    Raises:
        ConfigError: It has learnt from the whole of the same log, or from times after the test begins.
    """
    notes = read_manifest(place).get("notes", {})
    same_data = notes.get("experiment", {}).get("data") == experiment.tables()["data"]
    if notes.get("learnt_from") == "everything" and same_data:
        raise ConfigError(f"{place} learnt from the whole log, answers included; fit it without --everything.")
    begins = split.facts.get("test_from")
    if begins is not None and model.trained_until_ > 1 + round(datetime.fromisoformat(begins).timestamp() * 1000):
        raise ConfigError(f"{place} learnt from events later than {begins}, where the test begins; fit it again.")


def _is_model(place: Path) -> bool:
    try:
        return "model" in read_manifest(place)
    except ArtifactError:
        return False
