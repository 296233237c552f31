"""An index beside its model: built from what the model is, kept in its folder, refused if it is of another.

```
model/
├── manifest.json  …
└── index/
    ├── manifest.json        kind, recall, what was promised, the hash of the model, hashes of the files
    ├── usual_items.npy  …  what the model lists for nobody, which takes a look at every item
    └── codes.npy  …
```
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nextsession.data.log import SessionLog, offsets_of
from nextsession.errors import ArtifactError, ConfigError
from nextsession.files import manifest_of, sha256, verify, whole_directory
from nextsession.index.contract import Exact, ItemIndex
from nextsession.index.faiss_indexes import Graph, Products
from nextsession.index.lists import InvertedLists
from nextsession.recommender import Recommender
from nextsession.scores import DotScores, Limits, TopK

FOLDER = "index"
FORMAT = 3
LEAST_RECALL = 0.97
KINDS: dict[str, type[ItemIndex]] = {kind.kind: kind for kind in (Exact, InvertedLists, Products, Graph)}
Kind: TypeAlias = Literal["exact", "ivf", "pq", "hnsw"]
USUAL = 1000
"""Length of the list for nobody that is kept."""
_QUERIES = 400
_ITEMS, _SCORES = "usual_items.npy", "usual_scores.npy"


def vectors_of(model: Recommender[Any]) -> NDArray[np.float32] | None:
    """Return the vectors whose products with queries are the scores of a model; None if it scores otherwise."""
    scores = model.scores(SessionLog.from_lists([[]], vocabulary=model.vocabulary_))
    return scores.items if isinstance(scores, DotScores) else None


def queries_of(model: Recommender[Any], *, number: int = _QUERIES, seed: int = 0) -> NDArray[np.float32]:
    """Return what the model makes of histories such as it expects: each begins anywhere and goes where the model says.

    Args:
        model: One that scores by products.
        number: How many.
        seed: Chooses where histories begin, and which of the likely items follow.
    """
    rng = np.random.default_rng(seed)
    sessions = [[code] for code in rng.integers(0, len(model.vocabulary_), number).tolist()]
    for length in range(1, 5):
        going = [sessions[row] for row in range(number) if row % 5 >= length]
        barred = np.array([code for session in going for code in session], np.int32)
        limits = Limits(offsets_of([len(session) for session in going]), barred)
        found = _products_of(model, going).top(10, limits).items  # one pass over the items for all of them
        for session, codes in zip(going, found, strict=True):
            likely = codes[codes >= 0].tolist()
            if likely:
                session.append(likely[int(rng.integers(len(likely)))])
    return _products_of(model, sessions).queries


def _products_of(model: Recommender[Any], sessions: list[list[int]]) -> DotScores:
    ids = model.vocabulary_.ids
    log = SessionLog.from_lists([[ids[session].tolist()] for session in sessions], vocabulary=model.vocabulary_)
    scores = model.scores(log)
    if not isinstance(scores, DotScores):
        raise ConfigError(f"{model.name} does not score by products of vectors, so there is nothing to index.")
    return scores


def build_index(model: Recommender[Any], kind: Kind, *, least_recall: float = LEAST_RECALL) -> ItemIndex:
    """Build an index for a model, and measure its recall on queries of that model.

    Raises:
        ConfigError: The model does not score by products of vectors.
        ArtifactError: The promise cannot be kept.
    """
    vectors = vectors_of(model)
    if vectors is None:
        raise ConfigError(f"{model.name} does not score by products of vectors, so there is nothing to index.")
    queries = queries_of(model) if kind != "exact" else vectors[:0]
    index = KINDS[kind].build(vectors, queries, least_recall=least_recall)
    index.usual = usual_of(model)
    return index


def usual_of(model: Recommender[Any]) -> TopK:
    """Return what a model lists for somebody of whom nothing is known, `(1, n)`: at most `USUAL` items."""
    found = model.recommend(SessionLog.from_lists([[]], vocabulary=model.vocabulary_), USUAL)
    there = found.items[0] >= 0
    return TopK(found.items[:1, there], found.scores[:1, there])


def save_index(index: ItemIndex, folder: Path, *, least_recall: float = LEAST_RECALL) -> None:
    """Keep an index in the folder of its model, whole or not at all."""
    with whole_directory(folder / FOLDER) as scratch:
        index.save(scratch)
        if index.usual is not None:
            np.save(scratch / _ITEMS, index.usual.items)
            np.save(scratch / _SCORES, index.usual.scores)
        files = {path.name: sha256(path) for path in sorted(scratch.iterdir())}
        facts = {
            "format": FORMAT,
            "kind": index.kind,
            "recall": index.recall,
            "least_recall": least_recall,
            "model": _hash(folder),
            "files": files,
        }
        (scratch / "manifest.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_index(model: Recommender[Any], folder: Path) -> ItemIndex | None:
    """Return the index that lies beside a model; None if none does.

    Raises:
        ArtifactError: It is damaged, of another model, or finds less than was promised.
    """
    place = folder / FOLDER
    if not place.is_dir():
        return None
    manifest = manifest_of(place, "index of items", FORMAT)
    if manifest["format"] < FORMAT:
        raise ArtifactError(f"{place} was built by an older version; run `nextsession index {folder}` again.")
    vectors = vectors_of(model)
    if vectors is None or manifest.get("model") != _hash(folder) or manifest.get("kind") not in KINDS:
        raise ArtifactError(f"{place} is of another model; run `nextsession index {folder}` again.")
    verify(place, manifest["files"])
    index = KINDS[manifest["kind"]].load(place, vectors)
    if _ITEMS in manifest["files"]:
        index.usual = TopK(np.load(place / _ITEMS), np.load(place / _SCORES))
    if index.recall < manifest["least_recall"]:
        raise ArtifactError(
            f"{place} finds {index.recall:.3f} of the best items, and {manifest['least_recall']:g} was promised."
        )
    return index


def _hash(folder: Path) -> str:
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
