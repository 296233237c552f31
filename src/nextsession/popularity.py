"""How often each item was wanted in what a model learnt from: kept beside it, for lists that it cannot fill."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError

FILE = "popularity.npy"


def write_popularity(place: Path, log: SessionLog, vocabulary: Vocabulary) -> None:
    """Note how often each item of a vocabulary was wanted in a log."""
    np.save(place / FILE, popularity_of(log, vocabulary))


def popularity_of(log: SessionLog, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Return the number of wanted events of each item of a vocabulary, `(V,)`.

    >>> log = SessionLog.from_lists([[["tea", "milk", "tea"]]])
    >>> popularity_of(log, Vocabulary(["cake", "milk", "tea"])).tolist()
    [0, 1, 2]
    """
    codes = vocabulary.translate(log.vocabulary)[log.items[log.labels == 1]]
    return np.bincount(codes[codes >= 0], minlength=len(vocabulary))


def read_popularity(place: Path, items: int) -> NDArray[np.int64] | None:
    """Return what was noted of how often each item was wanted, `(V,)`; None where it noted nothing.

    Raises:
        ArtifactError: The file is damaged, or of another number of items.
    """
    file = place / FILE
    if not file.is_file():
        return None
    try:
        found: NDArray[np.int64] = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file} is damaged: {error}.") from None
    if found.shape != (items,) or found.dtype != np.int64:
        raise ArtifactError(f"{file} is damaged: it is not of the {items} items of the model.")
    return found
