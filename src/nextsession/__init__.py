"""nextsession: from a raw click log to live session recommendations."""

from nextsession.cases import Cases
from nextsession.config import Runtime, Settings
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
