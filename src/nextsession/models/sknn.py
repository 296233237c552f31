"""Sessions like this one: votes of the most similar sessions."""

from typing import ClassVar, Literal

from nextsession.neighbour_search import COSINE, JACCARD, SAME, Recipe
from nextsession.neighbours import NeighbourModel, NeighbourSettings


class SKNNSettings(NeighbourSettings):
    """Settings of `SKNN`."""

    similarity: Literal["jaccard", "cosine"] = "cosine"
    """Of the sets of items: shared / distinct of both, or shared / root of the product of their sizes."""


class SKNN(NeighbourModel[SKNNSettings]):
    """Lets the `neighbours` sessions most similar to the question, as sets of items, vote for their items.

    `score(i)` is the sum of the similarities of the neighbours that hold `i`.

    The published code computes the cosine as `shared / sqrt(a) * sqrt(b)`, which rewards long
    sessions; here it is `shared / (sqrt(a) * sqrt(b))`.
    """

    name = "sknn"
    reference = (
        "Jannach and Ludewig, When recurrent neural networks meet the neighborhood for session-based "
        "recommendation, RecSys 2017"
    )
    ordered: ClassVar[bool] = False

    def _recipe(self) -> Recipe:
        return Recipe(SAME, JACCARD if self.config.similarity == "jaccard" else COSINE)

    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        """One variant for each similarity."""
        return [{}, {"similarity": "jaccard"}]
