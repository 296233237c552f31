"""The same list for everybody: what a load test measures when the model costs nothing."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.config import Runtime, Settings
from nextsession.data.log import SessionLog
from nextsession.recommender import Recommender
from nextsession.scores import SparseScores, tie_keys


class NoopSettings(Settings):
    """Settings of `Noop`."""

    length: int = Field(default=100, ge=1)
    """How many items the list holds."""


class Noop(Recommender[NoopSettings]):
    """Gives every question the same list: the most frequent items, found once, ties as in all lists.

    It is the zero on the scale of costs: what is left when no model runs.
    """

    name = "noop"
    ordered: ClassVar[bool] = False

    items_: NDArray[np.int32]  # (length,)

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        counts = np.bincount(log.items, minlength=log.n_items)
        self.items_ = np.lexsort((tie_keys(log.n_items), -counts))[: self.config.length].astype(np.int32)

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> SparseScores:
        n, size = len(histories), len(self.items_)
        values = np.arange(size, 0, -1, dtype=np.float32)
        return SparseScores(np.arange(n + 1) * size, np.tile(self.items_, n), np.tile(values, n), histories.n_items)

    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        """A long and a short list."""
        return [{}, {"length": 3}]
