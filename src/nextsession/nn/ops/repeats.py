"""What a history says of the items in it: how often and how long ago each was wanted, or shown and ignored."""

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled

N_FEATURES = 10
DECAYS = (0.5, 0.9)
"""What an event in the session before counts for, beside one in the last session, and so on."""
_MINUTE = 60_000.0


@compiled
def repeats(
    items: NDArray[np.int32],
    labels: NDArray[np.int8],
    times: NDArray[np.int64],
    session_offsets: NDArray[np.int64],
    user_offsets: NDArray[np.int64],
    asked_at: NDArray[np.int64],
    n_items: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return every distinct item of every history, with what is known of it.

    Returns:
        Rows `(K,)`, never falling; items `(K,)`, no pair twice; and features `(K, 10)`: log(1 + events in
        which it was wanted), log(1 + events in which it was ignored), log(1 + sessions since it was last
        wanted), log(1 + minutes since its last event) / 8, was it wanted in the last session, share
        of the sessions in which it was wanted, was it ever wanted, log(1 + sessions of the history), and twice
        log(1 + events in which it was wanted, older ones less, see `DECAYS`).
    """
    rows, found = np.empty(len(items), np.int64), np.empty(len(items), np.int64)
    features = np.zeros((len(items), N_FEATURES), np.float32)
    stamps, slots = np.full(n_items, -1, np.int64), np.empty(n_items, np.int64)
    last_session = np.empty(len(items), np.int64)
    n = 0
    for u in range(len(user_offsets) - 1):
        first, end = user_offsets[u], user_offsets[u + 1]
        begin = n
        for s in range(first, end):
            for e in range(session_offsets[s], session_offsets[s + 1]):
                item = items[e]
                if stamps[item] != u:
                    stamps[item], slots[item] = u, n
                    rows[n], found[n], last_session[n] = u, item, -1
                    n += 1
                k = slots[item]
                if labels[e] != 1:
                    features[k, 1] += 1
                    continue
                features[k, 0] += 1
                for d in range(len(DECAYS)):
                    features[k, 8 + d] += DECAYS[d] ** (end - 1 - s)
                if last_session[k] != s:
                    features[k, 5] += 1
                    last_session[k] = s
        for k in range(begin, n):
            sessions = end - first
            since = end - 1 - last_session[k] if last_session[k] >= 0 else sessions
            features[k, 6] = 1.0 if last_session[k] >= 0 else 0.0
            features[k, 4] = 1.0 if last_session[k] == end - 1 else 0.0
            for d in range(len(DECAYS)):
                features[k, 8 + d] = np.log1p(features[k, 8 + d])
            features[k, 0] = np.log1p(features[k, 0])
            features[k, 1] = np.log1p(features[k, 1])
            features[k, 2] = np.log1p(np.float64(since))
            features[k, 5] /= sessions
            features[k, 7] = np.log1p(np.float64(sessions))
    _ages(items, times, session_offsets, user_offsets, asked_at, stamps, slots, features)
    return rows[:n].copy(), found[:n].copy(), features[:n].copy()


@compiled
def _ages(
    items: NDArray[np.int32],
    times: NDArray[np.int64],
    session_offsets: NDArray[np.int64],
    user_offsets: NDArray[np.int64],
    asked_at: NDArray[np.int64],
    stamps: NDArray[np.int64],
    slots: NDArray[np.int64],
    features: NDArray[np.float32],
) -> None:
    """Write how long ago the last event of each item of each history was (float32 would not hold an instant)."""
    n = 0
    stamps[:] = -1
    for u in range(len(user_offsets) - 1):
        for e in range(session_offsets[user_offsets[u]], session_offsets[user_offsets[u + 1]]):
            if stamps[items[e]] != u:
                stamps[items[e]], slots[items[e]] = u, n
                n += 1
            age = max(0.0, np.float64(asked_at[u] - times[e]) / _MINUTE)
            features[slots[items[e]], 3] = np.log1p(age) / 8
