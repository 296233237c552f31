"""Sessions like the end of this one, from a bounded index: VMIS-kNN."""

from typing import Literal

from pydantic import Field

from nextsession.neighbour_search import DIV, LINEAR, LOG, QUADRATIC, SAME, SHARE, SUM, Recipe
from nextsession.neighbours import IndexRule, NeighbourModel, NeighbourSettings

_DECAYS = {"same": SAME, "div": DIV, "quadratic": QUADRATIC, "log": LOG, "linear": LINEAR}


class VMISKNNSettings(NeighbourSettings):
    """Settings of `VMISKNN`."""

    neighbours: int = Field(default=288, ge=1)
    """Sessions that vote (`k`)."""
    sample: int = Field(default=1502, ge=1)
    """Candidates of a question, and sessions indexed for each item: always the most recent (`m`)."""
    last: int | None = Field(default=4, ge=1)
    """Only this many of the latest events of the question are used (`max_items`); none: all."""
    decay: Literal["same", "div", "quadratic", "log", "linear"] = "linear"
    """A neighbour whose latest shared item is `s` events from the end of the question (the last
    is 1) votes with 1, `1/s`, `1/s^2`, `1/log10(s+1.7)` or `max(0, 1-0.1s)` of its similarity."""
    idf: float = Field(default=2.0, ge=0)
    """Votes for an item count `idf x ln(all events / events of the item)` times; 0: once."""
    longest: float = Field(default=0.995, gt=0, le=1)
    """Sessions longer than this quantile of all lengths are left out of the index."""


class VMISKNN(NeighbourModel[VMISKNNSettings]):
    """`VSKNN` as it is served: only the newest `sample` sessions of each item are kept in the index.

    The distinct items of the question weigh their place from the start / number of distinct items;
    the similarity is the sum of the weights of the shared ones.  The published algorithm walks each
    item's sessions from the newest and stops when its candidates are full of newer ones; the merge
    of `nextsession.neighbours` keeps exactly the same candidates.
    """

    name = "vmisknn"
    reference = "Kersbergen et al., Serenade: low-latency session-based recommendation in e-commerce, SIGMOD 2022"

    def _recipe(self) -> Recipe:
        settings = self.config
        base = 0.0 if settings.idf else 1.0
        return Recipe(SHARE, SUM, decay=_DECAYS[settings.decay], base=base, idf=settings.idf)

    def _index_rule(self) -> IndexRule:
        return IndexRule(self.config.longest, self.config.sample, "events")

    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        """As tuned by its authors, and a small index."""
        return [{}, {"sample": 20, "neighbours": 10, "idf": 0.0, "decay": "div", "last": None}]
