"""The contract of item indexes: promises as functions, over kinds of vectors that are hard in different ways.

```python no-run
from nextsession.testing.indexes import check_index

check_index(MyIndex)
```
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextsession.errors import ArtifactError, ModelError
from nextsession.index.contract import ItemIndex, recall_of
from nextsession.scores import DotScores, Limits
from nextsession.testing.subjects import expect

N, WIDTH = 3000, 16
IndexCheck = Callable[[type[ItemIndex]], None]


def index_checks() -> Iterator[tuple[str, IndexCheck]]:
    """Give the name and the function of every promise."""
    for name, function in globals().items():
        if name.startswith("check_") and name != "check_index":
            yield name.removeprefix("check_"), function


def check_index(kind: type[ItemIndex]) -> None:
    """Hold a kind of index to every promise.

    Raises:
        ModelError: Promises are broken; each is named, with what was found.
    """
    wrong = []
    for name, function in index_checks():
        try:
            function(kind)
        except Exception as error:  # whatever goes wrong, the promise was not kept
            wrong.append(
                f"{name}: {(function.__doc__ or '').partition(chr(10))[0]} Found: {type(error).__name__}: {error}"
            )
    if wrong:
        raise ModelError("\n".join(wrong))


def clustered(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return vectors in clusters, of different lengths, and queries near some of them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(50, WIDTH))
    vectors = centres[rng.integers(0, 50, N)] + 0.4 * rng.normal(size=(N, WIDTH))
    vectors *= rng.lognormal(0, 0.2, (N, 1))
    queries = vectors[rng.integers(0, N, 200)] + 0.3 * rng.normal(size=(200, WIDTH))
    return vectors.astype(np.float32), queries.astype(np.float32)


def made(kind: type[ItemIndex], least_recall: float = 0.9) -> tuple[ItemIndex, NDArray[np.float32]]:
    """Return an index of clustered vectors, and queries."""
    vectors, queries = clustered()
    return kind.build(vectors, queries, least_recall=least_recall), queries


# -- promises -----------------------------------------------------------------------------------


def check_recall(kind: type[ItemIndex]) -> None:
    """On queries of the kind it was built for, an index finds what it says it finds."""
    index, _ = made(kind)
    vectors, queries = clustered()
    fresh = (queries + 0.05 * np.random.default_rng(9).normal(size=queries.shape)).astype(np.float32)
    expect(index.recall >= 0.9, f"it was built with a recall of {index.recall:.3f}, .9 was promised.")
    reached = recall_of(index, fresh)
    expect(reached >= index.recall - 0.05, f"it says {index.recall:.3f}, and found {reached:.3f} of {len(vectors)}.")


def check_scores(kind: type[ItemIndex]) -> None:
    """Scores are the products themselves, best first, and no item is listed twice."""
    index, queries = made(kind)
    top = index.search(queries[:50], 20)
    for row, query in enumerate(queries[:50]):
        codes, scores = top.items[row], top.scores[row]
        expect(len(set(codes.tolist())) == 20, f"a list repeats itself: {codes.tolist()}.")
        expect(np.allclose(scores, index.vectors[codes] @ query, rtol=1e-4, atol=1e-4), "a score is not the product.")
        expect(np.all(scores[1:] <= scores[:-1]), "scores rise along a list.")


def check_barred(kind: type[ItemIndex]) -> None:
    """Barred items are never listed, and others take their places."""
    index, queries = made(kind)
    first = index.search(queries[:20], 30).items
    limits = Limits(np.arange(21) * 30, first.reshape(-1).astype(np.int32))
    second = index.search(queries[:20], 30, limits)
    for row in range(20):
        expect(not set(first[row].tolist()) & set(second.items[row].tolist()), "a barred item is listed.")
        expect(np.all(second.items[row] >= 0), "a list is short though items are left.")


def check_filters(kind: type[ItemIndex]) -> None:
    """Filters of every size are kept, full lists come back, and hardly anything is lost."""
    index, queries = made(kind)
    rng = np.random.default_rng(3)
    for share in (0.9, 0.5, 0.1, 0.03, 0.01, 0.002):
        allowed = rng.random(N) < share
        limits = Limits(np.zeros(len(queries) + 1, np.int64), np.zeros(0, np.int32), allowed)
        top = index.search(queries, 10, limits)
        listed = top.items[top.items >= 0]
        expect(np.all(allowed[listed]), f"an item is listed that the filter of {share:g} leaves out.")
        expect(np.all((top.items >= 0).sum(axis=1) == min(10, allowed.sum())), f"lists are short at {share:g}.")
        truth = DotScores(queries, index.vectors).top(10, limits).items
        hits = sum(len(set(a[a >= 0].tolist()) & set(b.tolist())) for a, b in zip(truth, top.items, strict=True))
        there = int((truth >= 0).sum())
        expect(hits >= 0.85 * there, f"at {share:g} it finds {hits} of {there}.")


def check_nothing_left(kind: type[ItemIndex]) -> None:
    """Where all is filtered away lists are empty; asked for more than there is, all is listed."""
    index, queries = made(kind)
    nothing = Limits(np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(N, np.bool_))
    expect(np.all(index.search(queries[:2], 5, nothing).items == -1), "something is listed.")
    expect(np.all(np.sort(index.search(queries[:1], N + 5).items[0]) == np.arange(N)), "not all is listed.")


def check_company(kind: type[ItemIndex]) -> None:
    """A query gets the same list alone as in company."""
    index, queries = made(kind)
    together = index.search(queries[:30], 10).items
    alone = np.concatenate([index.search(queries[row : row + 1], 10).items for row in range(30)])
    expect(np.array_equal(together, alone), "a list differs.")
    expect(index.search(queries[:0], 10).items.shape == (0, 10), "no query got an answer.")


def check_hard_vectors(kind: type[ItemIndex]) -> None:
    """Items marked as never wanted, twins, and vectors of nothing are no trouble."""
    vectors, queries = clustered()
    vectors = np.hstack([vectors, np.zeros((N, 2), np.float32)])
    vectors[5:60] = vectors[5]
    vectors[100:120] = 0
    vectors[:, -1] = np.arange(N)  # read only where nothing is known of the visitor
    vectors[::7, -2] = -1e6  # never wanted
    queries = np.hstack([queries, np.ones((200, 1), np.float32), np.zeros((200, 1), np.float32)]).astype(np.float32)
    index = kind.build(vectors, queries, least_recall=0.8)
    top = index.search(queries, 50).items
    expect(not np.any(top % 7 == 0), "an item is listed that nobody wanted.")
    nobody = np.zeros((1, WIDTH + 2), np.float32)
    nobody[0, -1] = 1
    expect(index.search(nobody, 3).items[0].tolist() == [N - 1, N - 2, N - 3], "a query unlike the others fails.")


def check_broken_promise(kind: type[ItemIndex]) -> None:
    """An index that cannot find what it promised is refused, with what it found."""
    if kind.kind == "exact":
        return
    try:
        made(kind, least_recall=1.01)
    except ArtifactError as error:
        expect("was promised" in str(error), f"the message is {error}")
    else:
        raise ModelError("a promise that cannot be kept was accepted.")


def check_kept(kind: type[ItemIndex]) -> None:
    """Saved and loaded, an index gives the same lists."""
    index, queries = made(kind)
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder))
        again = kind.load(Path(folder), index.vectors)
        expect(again.recall == index.recall, "its recall is another.")
        one, other = index.search(queries, 10), again.search(queries, 10)
        expect(np.array_equal(one.items, other.items), "a list differs.")
