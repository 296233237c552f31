"""Sessions like this one, lately: nearest sessions weighed by place, age and distance."""

from typing import ClassVar

from pydantic import Field

from nextsession.config import Duration
from nextsession.neighbour_search import COSINE, EXPONENTIAL, SAME, Recipe
from nextsession.neighbours import NeighbourModel, NeighbourSettings


class STANSettings(NeighbourSettings):
    """Settings of `STAN`; each decay is the distance at which a weight falls to 1/e, none: it never falls."""

    place_decay: float | None = Field(default=1.02, gt=0)
    """Events from the end of the question to the shared item (`lambda_spw`)."""
    age_decay: Duration | None = Field(default=432_000_000, gt=0)
    """Time from the end of the session to the question (`lambda_snh`)."""
    distance_decay: float | None = Field(default=2.05, gt=0)
    """Events, in the neighbour, between its latest shared item and the item it votes for (`lambda_inh`)."""


class STAN(NeighbourModel[STANSettings]):
    """Weighs the question's items by their place, neighbours by their age, and votes by their distance.

    `similarity = cosine of the weighted question with the session x exp(-age / age_decay)`, and a
    neighbour votes for the item whose last place is `p` with `similarity x exp(-|p - q| / distance_decay)`,
    where `q` is the place of its last event that the question shares.

    Only sessions that ended before the instant of the question exist.  Ages of more than 46
    `age_decay` since the newest candidate count as 46, so that scores do not vanish.
    """

    name = "stan"
    reference = "Garg et al., Sequence and time aware neighborhood for session-based recommendations, SIGIR 2019"
    reads_clock: ClassVar[bool] = True

    def _recipe(self) -> Recipe:
        settings = self.config
        return Recipe(
            SAME if settings.place_decay is None else EXPONENTIAL,
            COSINE,
            weighting_scale=settings.place_decay or 1.0,
            age_scale=float(settings.age_decay or 0),
            distance_scale=settings.distance_decay or 0.0,
            clocked=True,
        )

    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        """With and without the decays."""
        return [{}, {"place_decay": None, "age_decay": None, "distance_decay": None}]
