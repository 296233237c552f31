"""What a history says of its items, against loops from the definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextsession.data.log import SessionLog
from nextsession.nn.ops.repeats import DECAYS, N_FEATURES, repeats
from nextsession.testing.strategies import MINUTE, logs


def found_in(log: SessionLog, asked_at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = np.ascontiguousarray(log.labels)
    return repeats(log.items, labels, log.times, log.session_offsets, log.user_offsets, asked_at, log.n_items)


def slowly(log: SessionLog, asked_at: np.ndarray) -> dict[tuple[int, int], list[float]]:
    found = {}
    for u in range(len(log)):
        sessions = []
        for s in range(log.user_offsets[u], log.user_offsets[u + 1]):
            events = range(log.session_offsets[s], log.session_offsets[s + 1])
            sessions.append([(int(log.items[e]), log.labels[e] == 1, int(log.times[e])) for e in events])
        for item in {i for session in sessions for i, _, _ in session}:
            wanted = [sum(i == item and w for i, w, _ in session) for session in sessions]
            ignored = [sum(i == item and not w for i, w, _ in session) for session in sessions]
            last = max((s for s, n in enumerate(wanted) if n), default=-1)
            newest = [t for session in sessions for i, _, t in session if i == item][-1]
            found[u, item] = [
                math.log1p(sum(wanted)),
                math.log1p(sum(ignored)),
                math.log1p(len(sessions) - 1 - last),
                math.log1p(max(0, asked_at[u] - newest) / MINUTE) / 8,
                float(wanted[-1] > 0),
                sum(n > 0 for n in wanted) / len(sessions),
                float(sum(wanted) > 0),
                math.log1p(len(sessions)),
                *(math.log1p(sum(n * d**age for age, n in enumerate(reversed(wanted)))) for d in DECAYS),
            ]
    return found


@given(log=logs(users=4, sessions=4, events=5), later=st.integers(0, 10**10))
def test_every_item_of_every_history_once_with_what_loops_find(log: SessionLog, later: int) -> None:
    asked_at = log.last_times + later
    rows, items, features = found_in(log, asked_at)
    expected = slowly(log, asked_at)
    pairs = list(zip(rows.tolist(), items.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == set(expected)
    assert (np.diff(rows) >= 0).all()
    assert features.shape == (len(pairs), N_FEATURES)
    for pair, numbers in zip(pairs, features.tolist(), strict=True):
        assert numbers == pytest.approx(expected[pair], rel=1e-5, abs=1e-6)


def test_minutes_are_told_apart_at_the_instants_of_our_days() -> None:
    """float32 holds an instant to about two minutes only."""
    log = SessionLog.from_lists([[["a", "b"]]], times=[[[1_700_000_000_000, 1_700_000_060_000]]])
    _, _, features = found_in(log, np.array([1_700_000_120_000]))
    np.testing.assert_allclose(features[:, 3], np.log1p([2, 1]) / 8, rtol=1e-6)


def test_a_question_put_before_its_history_ended_sees_no_negative_age() -> None:
    log = SessionLog.from_lists([[["a"]]])
    _, _, features = found_in(log, log.last_times - 10**9)
    assert features[0, 3] == 0
