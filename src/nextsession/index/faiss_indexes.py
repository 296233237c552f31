"""Indexes of Faiss: inverted lists of vectors in codes of products, and graphs (needs the extra `index`)."""

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nextsession.errors import ArtifactError, ModelError
from nextsession.index.approximate import Approximate
from nextsession.index.contract import DEPTH
from nextsession.scores import Limits

_TRAINED_ON = 40
"""Vectors for each inverted list from which the lists are learnt."""
_ROUNDS = 10
"""Of learning the lists."""
_CHOICES, _TOGETHER = 256, 4
"""Codes of a byte, and the numbers that one stands for."""
_WIDE = 16
"""Faiss compares vectors quickly where their width is a multiple of this, and number by number elsewhere."""


def faiss() -> Any:
    """Return Faiss.

    Raises:
        ModelError: It is not installed.
    """
    try:
        import faiss as library
    except ModuleNotFoundError:
        raise ModelError("An approximate index needs faiss: pip install 'nextsession[index]'.") from None
    return library


class FaissIndex(Approximate):
    """What indexes of Faiss have in common: which columns and rows they hold, and how they are kept."""

    _columns: NDArray[np.int64]  # those that queries read
    _codes: NDArray[np.int64]  # (n,) the items that are in it
    _index: Any
    _fetched: ClassVar[int] = 1
    """So many times as many items are fetched as are wanted, for scores in the index to be off the exact ones."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        """Take the vectors."""
        super().__init__(vectors)
        self._bits: tuple[NDArray[np.bool_], NDArray[np.uint8]] | None = None
        self._unlimited: tuple[int, Any] = 0, None  # an effort, and the parameters for it: to make them takes 20 us

    def _make(self, codes: NDArray[np.int64], queries: NDArray[np.float32], seed: int) -> None:
        self._columns, self._codes = np.flatnonzero(np.any(queries != 0, axis=0)), codes
        self._index = self._made(np.ascontiguousarray(self.vectors[np.ix_(codes, self._columns)]), seed)

    @abstractmethod
    def _made(self, vectors: NDArray[np.float32], seed: int) -> Any:
        """Return an index of Faiss that holds these vectors."""

    @abstractmethod
    def _parameters(self, selector: Any) -> Any:
        """Return how hard Faiss should look, and at what."""

    def _asked(self, wanted: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the columns of queries that are read, `(B, columns)`, as Faiss is asked for them."""
        return np.ascontiguousarray(wanted)

    def _candidates(
        self, queries: NDArray[np.float32], k: int, limits: Limits
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        allowed, barred = limits.allowed, int(np.diff(limits.offsets).max(initial=0))
        wanted = queries[:, self._columns]
        unlike = np.count_nonzero(queries, axis=1) > np.count_nonzero(wanted, axis=1)
        if allowed is not None:
            parameters = self._parameters(self._selector(allowed))
        elif self._unlimited[0] == self.effort:
            parameters = self._unlimited[1]
        else:
            parameters = self._parameters(None)
            self._unlimited = self.effort, parameters
        most = min(self._fetched * (k + barred + DEPTH), len(self._codes))
        _, places = self._index.search(self._asked(wanted), most, params=parameters)
        found = [self._codes[row[row >= 0]].astype(np.int32) for row in places]
        return self._with_unlike(found, np.flatnonzero(unlike).tolist(), queries, k, limits)

    def _selector(self, allowed: NDArray[np.bool_]) -> Any:
        bits = self._bits
        if bits is None or bits[0] is not allowed:
            bits = self._bits = allowed, np.packbits(allowed[self._codes], bitorder="little")
        return faiss().IDSelectorBitmap(bits[1])

    def save(self, folder: Path) -> None:
        """Write the index of Faiss, and how it is used."""
        faiss().write_index(self._index, str(folder / "index.faiss"))
        np.save(folder / "codes.npy", self._codes)
        facts = {"columns": self._columns.tolist(), "effort": self.effort, "recall": self.recall}
        (folder / "index.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, vectors: NDArray[np.float32]) -> Self:
        """Map what `save` wrote into memory, so that processes share it."""
        self, library = cls(vectors), faiss()
        facts = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self._columns, self.effort, self.recall = np.array(facts["columns"]), facts["effort"], facts["recall"]
        self._codes = np.load(folder / "codes.npy", allow_pickle=False)
        try:
            self._index = library.read_index(str(folder / "index.faiss"), library.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ArtifactError(f"{folder} is damaged: {str(error).splitlines()[0]}") from None
        if self._index.ntotal != len(self._codes) or self._codes.max(initial=-1) >= len(vectors):
            raise ArtifactError(f"{folder} is of other items; build the index again.")
        return self


class Products(FaissIndex):
    """Inverted lists of vectors in codes: a byte for four numbers, chosen of 256 learnt (product quantisation).

    A quarter of the bytes of `ivf` for vectors.  Lists are chosen as there, by mean and scatter.  Scores of
    codes are rough: four times as many items are fetched, and chosen among by their exact scores.
    """

    kind = "pq"
    _fetched = 4

    def _made(self, vectors: NDArray[np.float32], seed: int) -> Any:
        library = faiss()
        n, width = vectors.shape
        lists = max(1, min(int(2 * n**0.5), n // _TRAINED_ON))
        wide = _WIDE * -(-(width + 1) // _WIDE)
        padded = np.zeros((n, wide), np.float32)
        padded[:, :width] = vectors
        some = padded[np.sort(np.random.default_rng(seed).permutation(n)[: _TRAINED_ON * lists])]
        learnt = library.Kmeans(
            wide, lists, niter=_ROUNDS, seed=seed + 1234, spherical=True, max_points_per_centroid=_TRAINED_ON
        )
        learnt.train(some / np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1e-9))
        chooser = library.IndexFlatIP(wide)
        chooser.add(learnt.centroids)
        index = self._empty(chooser, wide, lists, n)
        index.train(some)
        index.add(padded)
        chooser.reset()
        chooser.add(_promises(padded, width, [_members(index, number) for number in range(lists)]))
        return index

    def _empty(self, chooser: Any, wide: int, lists: int, n: int) -> Any:
        """Return an index of Faiss that will hold `n` vectors."""
        library = faiss()
        if n < _CHOICES:  # so few that codes cannot be learnt, and need not be
            bytes_, metric = library.ScalarQuantizer.QT_8bit, library.METRIC_INNER_PRODUCT
            return library.IndexIVFScalarQuantizer(chooser, wide, lists, bytes_, metric, False)
        index = library.IndexIVFPQ(chooser, wide, lists, wide // _TOGETHER, 8, library.METRIC_INNER_PRODUCT)
        index.by_residual = False  # the chooser does not stay what the vectors were nearest to
        index.pq.cp.min_points_per_centroid = 1
        return index

    def _asked(self, wanted: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add the length of each query, which the scatter of a list is multiplied with."""
        asked = np.zeros((len(wanted), self._index.d), np.float32)
        width = wanted.shape[1]
        asked[:, :width] = wanted
        asked[:, width] = np.sqrt(np.einsum("bd,bd->b", wanted, wanted))
        return asked

    def _parameters(self, selector: Any) -> Any:
        more = {} if selector is None else {"sel": selector}
        return faiss().SearchParametersIVF(nprobe=min(self.effort, self._index.nlist), **more)


def _members(index: Any, number: int) -> NDArray[np.int64]:
    """Return the places of the vectors in an inverted list."""
    lists = index.invlists
    places: NDArray[np.int64] = faiss().rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
    return places


def _promises(padded: NDArray[np.float32], width: int, lists: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Return for each list the mean of its vectors, and in the column after them how far its best lies above it."""
    made = np.zeros((len(lists), padded.shape[1]), np.float32)
    for row, places in zip(made, lists, strict=True):
        if len(places):
            own = padded[places, :width]
            row[:width] = own.mean(axis=0)
            deviation = np.sqrt(np.mean((own - row[:width]) ** 2))
            row[width] = deviation * np.sqrt(2 * np.log(max(len(places), 2)))
    return made


class Graph(FaissIndex):
    """A navigable graph; good where vectors are of like length, poor where they are not, which is measured."""

    kind = "hnsw"

    def _made(self, vectors: NDArray[np.float32], seed: int) -> Any:
        library = faiss()
        index = library.IndexHNSWFlat(vectors.shape[1], 32, library.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        index.add(vectors)
        return index

    def _parameters(self, selector: Any) -> Any:
        more = {} if selector is None else {"sel": selector}
        return faiss().SearchParametersHNSW(efSearch=max(self.effort, DEPTH), **more)
