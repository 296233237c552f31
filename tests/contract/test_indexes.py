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

    def _candidates(self, queries, k, allowed):
        return [row[row % 2 == 0] for row in super()._candidates(queries, 2 * k, allowed)]


class Deaf(Exact):
    """Does not hear of filters."""

    def _candidates(self, queries, k, allowed):
        return [np.arange(k)] * len(queries)


def test_faults_are_noticed():
    with pytest.raises(ModelError, match=r"(?s)recall: .*broken_promise: "):
        check_index(Careless)
    with pytest.raises(ModelError, match="recall: "):
        check_index(Deaf)
    check_index(Exact)
