"""Every kind of index keeps every promise."""

import numpy as np
import pytest

from nextsession.errors import ModelError
from nextsession.index.contract import Exact
from nextsession.index.kept import KINDS
from nextsession.testing.indexes import check_index, index_checks

CHECKS = dict(index_checks())


@pytest.mark.parametrize("promise", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_promise(kind, promise):
    CHECKS[promise](KINDS[kind])


class Careless(Exact):
    """Finds only even items."""

    kind = "careless"
    recall = 0.95

    def _candidates(self, queries, k, limits):
        offsets, codes = super()._candidates(queries, 2 * k, limits)
        even = codes % 2 == 0
        return np.append(0, np.cumsum(even))[offsets], codes[even]


class Deaf(Exact):
    """Does not hear of filters."""

    def _candidates(self, queries, k, limits):
        return k * np.arange(len(queries) + 1), np.tile(np.arange(k, dtype=np.int32), len(queries))


def test_faults_are_noticed():
    with pytest.raises(ModelError, match=r"(?s)recall: .*broken_promise: "):
        check_index(Careless)
    with pytest.raises(ModelError, match="recall: "):
        check_index(Deaf)
    check_index(Exact)


@pytest.mark.parametrize(
    ("offsets", "codes", "message"),
    [
        ([0, 1], [0, 1], "begin and end"),
        ([0, 2, 1], [0], "begin and end"),
        ([1, 1, 2], [0, 1], "begin and end"),
        ([0, 9, 2], [0, 1], "begin and end"),
        ([0, 1, 2], [0, 7], "no item"),
        ([0, 1, 2], [-1, 0], "no item"),
    ],
)
def test_candidates_that_are_none_are_refused_before_anything_is_read(offsets, codes, message):
    class Wrong(Exact):
        def _candidates(self, queries, k, limits):
            return np.array(offsets, np.int64), np.array(codes, np.int32)

    vectors = np.eye(7, dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        Wrong(vectors).search(vectors[:2], 1)
