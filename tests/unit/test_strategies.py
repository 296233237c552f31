"""The strategies for logs draw what they say, and what is rare in life."""

import numpy as np
import pytest
from hypothesis import find, given

from nextsession.testing.strategies import logs, nested_ids, vocabularies


def overlaps(log):
    same = log.user_of_session[1:] == log.user_of_session[:-1]
    return bool(np.any(same & (log.session_starts[1:] < log.session_ends[:-1])))


@pytest.mark.parametrize(
    ("strategy", "found"),
    [
        (logs(), lambda log: len(log) == 0),
        (logs(), lambda log: np.any(np.diff(log.user_offsets) == 0)),
        (logs(), lambda log: np.any(log.labels == 0)),
        (logs(), lambda log: len(np.unique(log.times)) < log.n_events),
        (logs(), lambda log: log.n_events and len(np.unique(log.items)) < log.n_items),
        (logs(overlaps=True), overlaps),
        (vocabularies(), lambda v: v.ids.dtype == object),
        (vocabularies(), lambda v: v.ids.dtype == np.int64 and len(v) > 1 and v.ids[1] < v.ids[0]),
        (nested_ids(), lambda users: any(user == [] for user in users)),
    ],
)
def test_rare_things_are_drawn(strategy, found):
    assert find(strategy, lambda drawn: bool(found(drawn))) is not None


@given(logs(ties=False, empty_users=False, labels=False))
def test_what_is_ruled_out_is_not_drawn(log):
    assert len(np.unique(log.times)) == log.n_events
    assert np.all(np.diff(log.user_offsets) > 0)
    assert np.all(log.labels == 1)
    assert not overlaps(log)
