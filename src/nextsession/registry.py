"""Find models by name: a file in `nextsession/models/` is a registered model.

Other packages register theirs with an entry point in the group `nextsession.models`.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from nextsession.artifacts import read_model
from nextsession.errors import ArtifactError, ModelError, UnknownNameError, suggestion
from nextsession.recommender import Recommender

_PACKAGE = "nextsession.models"

_APART = {"oracle": "nextsession.oracle"}
"""Models that fit only one kind of log: found by name, but not among `names()`."""


def names() -> list[str]:
    """Return the names of all models, sorted; nothing is imported."""
    return _names(entry_points(group=_PACKAGE))


def _names(points: Iterable[EntryPoint]) -> list[str]:
    folder = Path(__file__).parent / "models"
    own = {module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_")}
    return sorted(own | {point.name for point in points})


def model_class(name: str) -> type[Recommender[Any]]:
    """Import the model of that name.

    Raises:
        UnknownNameError: There is none; the message suggests the nearest.
        ModelError: It is another package's, and cannot be imported.
    """
    points = entry_points(group=_PACKAGE)  # all packages that are installed are looked through for them
    known = _names(points)
    if name not in known and name not in _APART:
        raise UnknownNameError(f"There is no model {name!r}.{suggestion(name, known)} Models: {', '.join(known)}.")
    for point in points:
        if point.name == name:
            found = _loaded(point)
            if isinstance(found, type) and issubclass(found, Recommender):
                return found
    try:
        module = importlib.import_module(_APART.get(name, f"{_PACKAGE}.{name}"))
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModelError(
            f"The model {name!r} needs torch, which is not installed: pip install 'nextsession[torch]'."
        ) from None
    for thing in vars(module).values():
        if not (isinstance(thing, type) and issubclass(thing, Recommender)):
            continue
        if thing.__module__ == module.__name__ and not thing.__name__.startswith("_"):
            return thing
    raise UnknownNameError(f"{module.__name__} defines no Recommender.")


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:  # whatever another package does when it is imported
        package = "another package" if point.dist is None else point.dist.name
        raise ModelError(
            f"The model {point.name!r} of {package} cannot be imported from {point.value}: "
            f"{type(error).__name__}: {error}. Mend or uninstall it."
        ) from error


def create(name: str, /, **settings: Any) -> Recommender[Any]:
    """Make an unfitted model of that name.

    >>> create("popular")
    Popular()
    """
    return model_class(name)(**settings)


def load(path: str | Path, *, kind: type[Recommender[Any]] | None = None) -> Recommender[Any]:
    """Load a saved model; its hashes are checked first.

    Args:
        path: The directory that `save` wrote.
        kind: The class of the model, for one that is not registered.

    Raises:
        ArtifactError: It is missing, damaged, or was written by a newer version.
        UnknownNameError: It is of a model that is not installed.
    """
    manifest, arrays, vocabulary = read_model(Path(path))
    try:
        model = (kind or model_class(manifest["model"]))(**manifest["config"])
        model.trained_until_ = manifest["trained_until"]
    except KeyError as error:
        raise ArtifactError(f"{path} is damaged: its manifest has no {error}.") from None
    model.vocabulary_ = vocabulary
    model._restore(arrays)
    return model
