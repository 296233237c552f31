"""Sessions like the end of this one: nearest sessions, latest items first."""

from typing import Literal

from pydantic import Field

from nextsession.neighbour_search import COSINE, DIV, IDF, LINEAR, LOG, QUADRATIC, SAME, VEC, Recipe
from nextsession.neighbours import NeighbourModel, NeighbourSettings

_KINDS = {"same": SAME, "div": DIV, "quadratic": QUADRATIC, "log": LOG, "linear": LINEAR, "idf": IDF}


class VSKNNSettings(NeighbourSettings):
    """Settings of `VSKNN`."""

    similarity: Literal["vec", "cosine"] = "vec"
    """`vec`: weights of shared items / distinct items of the question; `cosine`: weights of shared
    items / root of (sum of squared weights x distinct items of the session)."""
    weighting: Literal["same", "div", "quadratic", "log", "linear", "idf"] = "quadratic"
    """Weight of the question's item at place `p` of `L`: 1, `p/L`, `(p/L)^2`, `1/log10(L-p+1.7)`,
    `max(0, 1-0.1(L-p))`, or the item's idf instead of its place."""
    decay: Literal["same", "div", "quadratic", "log", "linear"] = "div"
    """A neighbour whose latest shared item is `s` events from the end of the question (the last
    is 1) votes with 1, `1/s`, `1/s^2`, `1/log10(s+1.7)` or `max(0, 1-0.1s)` of its similarity."""
    idf: float = Field(default=5.0, ge=0)
    """Votes for an item count `1 + idf x ln(sessions / events of the item)` times; 0: once."""


class VSKNN(NeighbourModel[VSKNNSettings]):
    """Like `SKNN`, but the later an item of the question, the more it counts.

    If an item is repeated, its latest place counts.  The `linear` weights and decay are held at 0
    where the published code goes wrong: it gives no weight to anything after the tenth item of a
    question, and negative votes beyond ten steps.  `last` also limits which items bring candidates.
    """

    name = "vsknn"
    reference = "Ludewig and Jannach, Evaluation of session-based recommendation algorithms, UMUAI 2018"

    def _recipe(self) -> Recipe:
        settings = self.config
        similarity = VEC if settings.similarity == "vec" else COSINE
        return Recipe(_KINDS[settings.weighting], similarity, decay=_KINDS[settings.decay], idf=settings.idf)

    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        """Both similarities, with and without idf."""
        return [{}, {"similarity": "cosine", "weighting": "log", "decay": "linear", "idf": 1.0}]
