"""Ids to codes while a log streams by, and to their final, sorted codes at its end."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Coder:
    """Numbers texts in the order of their first appearance, in compiled code.

    Polars keeps the table from text to number, one of its own for each `Coder`; the texts of the
    numbers are gathered here, for Polars gives them back one by one only.
    """

    def __init__(self) -> None:
        """Start without texts."""
        self._held = pl.Series([], dtype=pl.Categorical(pl.Categories.random()))  # keeps the table alive
        self._texts = pl.Series([], dtype=pl.String)

    def encode(self, texts: pl.Series) -> NDArray[np.int32]:
        """Return a number for each text, `(n,)`; a text seen before keeps its number."""
        codes = texts.rechunk().cast(self._held.dtype).to_physical().to_numpy()
        new = np.flatnonzero(codes >= len(self._texts))
        if len(new):
            numbers, first = np.unique(codes[new], return_index=True)
            self._texts.append(_alone(texts.gather(new[first])))
            assert numbers[-1] == len(self._texts) - 1, "numbers must be dense"
        return codes.astype(np.int32)

    def texts(self) -> pl.Series:
        """Return all texts seen, in the order of their numbers."""
        return self._texts

    def settle(self) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Return the ids, sorted, and the place of each number among them.

        Ids are int64 if every text is a whole number of 64 bits as a computer writes it, else str.
        """
        texts = self.texts()
        whole = texts.cast(pl.Int64, strict=False)
        canonical = whole.null_count() == 0 and bool((whole.cast(pl.String) == texts).all())
        ids: NDArray[Any] = whole.to_numpy() if canonical else np.array(texts.to_list(), dtype=object)
        order = np.argsort(ids, kind="stable") if canonical else texts.arg_sort().to_numpy()
        place = np.empty(len(ids), np.int32)
        place[order] = np.arange(len(ids), dtype=np.int32)
        return ids[order], place


def _alone(texts: pl.Series) -> pl.Series:
    """Return a copy of its own: a few texts gathered from a column keep the whole column in memory."""
    return pl.Series(texts.to_arrow(compat_level=pl.CompatLevel.oldest()))
