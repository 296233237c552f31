"""Find data sets by name: a file in this folder is a registered set.

A module `ml_1m.py` declares the set `ml-1m` as `SET`.  Modules that begin with an underscore hold
what several sets share.
"""

import importlib
import pkgutil

from nextsession.data.dataset import DataSet
from nextsession.errors import UnknownNameError, suggestion


def names() -> list[str]:
    """Return the names of all data sets, sorted; nothing is imported.

    >>> "ml-1m" in names()
    True
    """
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in found if not name.startswith("_"))


def get(name: str) -> DataSet:
    """Return the data set of that name.

    >>> get("ml-1m").title
    'MovieLens 1M'

    Raises:
        UnknownNameError: There is none; the message suggests the nearest.
    """
    if name not in names():
        raise UnknownNameError(
            f"There is no data set {name!r}.{suggestion(name, names())} Data sets: {', '.join(names())}."
        )
    found: DataSet = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").SET
    return found
