"""STAN and VSKNN in one: place, age, distance, latest shared item, rarity."""

from typing import ClassVar

from pydantic import Field

from nextsession.config import Duration
from nextsession.neighbour_search import COSINE, EXPONENTIAL, SAME, Recipe
from nextsession.neighbours import NeighbourModel, NeighbourSettings


class VSTANSettings(NeighbourSettings):
    """Settings of `VSTAN`; each decay is the distance at which a weight falls to 1/e, none: it never falls."""

    place_decay: float | None = Field(default=1.02, gt=0)
    """Events from the end of the question to the shared item (`lambda_spw`)."""
    age_decay: Duration | None = Field(default=432_000_000, gt=0)
    """Time from the end of the session to the question (`lambda_snh`)."""
    distance_decay: float | None = Field(default=2.05, gt=0)
    """Events, in the neighbour, between its latest shared item and the item it votes for (`lambda_inh`)."""
    match_decay: float | None = Field(default=1.02, gt=0)
    """Events from the end of the question to the latest item that the neighbour shares (`lambda_ipw`)."""
    idf: float = Field(default=5.0, ge=0)
    """Votes for an item count `1 + idf x ln(sessions / events of the item)` times (`lambda_idf`); 0: once."""


class VSTAN(NeighbourModel[VSTANSettings]):
    """Like `STAN`; neighbours that share a late item count more, and rare items get more of each vote.

    Only sessions that ended before the instant of the question exist; the counts behind the idf
    are theirs too.
    """

    name = "vstan"
    reference = (
        "Ludewig et al., Empirical analysis of session-based recommendation algorithms, UMUAI 2021, "
        "on STAN of Garg et al., SIGIR 2019"
    )
    reads_clock: ClassVar[bool] = True

    def _recipe(self) -> Recipe:
        settings = self.config
        return Recipe(
            SAME if settings.place_decay is None else EXPONENTIAL,
            COSINE,
            decay=SAME if settings.match_decay is None else EXPONENTIAL,
            weighting_scale=settings.place_decay or 1.0,
            decay_scale=settings.match_decay or 1.0,
            age_scale=float(settings.age_decay or 0),
            distance_scale=settings.distance_decay or 0.0,
            idf=settings.idf,
            clocked=True,
        )

    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        """With everything, and with idf alone."""
        alone: dict[str, object] = {"place_decay": None, "age_decay": None, "distance_decay": None, "match_decay": None}
        return [{}, alone]
