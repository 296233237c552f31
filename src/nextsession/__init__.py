"""nextsession: from a raw click log to live session recommendations."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextsession.config import Runtime, Settings
    from nextsession.data.cases import Cases
    from nextsession.data.log import SessionLog
    from nextsession.data.vocabulary import Vocabulary
    from nextsession.errors import NextSessionError
    from nextsession.recommender import Recommendations, Recommender
    from nextsession.registry import create, load

__all__ = [
    "Cases",
    "NextSessionError",
    "Recommendations",
    "Recommender",
    "Runtime",
    "SessionLog",
    "Settings",
    "Vocabulary",
    "create",
    "load",
]

_HOMES = {
    "config": ("Runtime", "Settings"),
    "data.cases": ("Cases",),
    "data.log": ("SessionLog",),
    "data.vocabulary": ("Vocabulary",),
    "errors": ("NextSessionError",),
    "recommender": ("Recommendations", "Recommender"),
    "registry": ("create", "load"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line answers `--help` at once."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"nextsession.{module}"), name)
    raise AttributeError(f"module 'nextsession' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
