"""Logs whose right answer is known exactly; a believable world is in `nextsession.data.shop`."""

import numpy as np

from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import DataError

_SECOND, _DAY = 1000, 86_400_000


def cycle(
    n_items: int = 30,
    n_users: int = 200,
    sessions_per_user: int = 4,
    session_length: int = 3,
    *,
    seed: int = 0,
    start: int = 0,
) -> SessionLog:
    """Make a log in which item `i + 1` always follows item `i`, and item 0 follows the last one.

    Every user begins at an item drawn by chance and goes on where the last session ended.  So the
    next item is known for certain, and so is the next session: the `session_length` items after
    the last one.  Events are a second apart, sessions a day; users come one after the other.

    Args:
        n_items: Length of the cycle, `V`; ids are `0..V-1`.
        n_users: Rows of the log.
        sessions_per_user: Sessions of each user.
        session_length: Events of each session.
        seed: Where users begin.
        start: The time of the first event of all, ms.

    Raises:
        DataError: A size is below 1.

    >>> log = cycle(4, 1, 2, 3)
    >>> (log.items[1:] - log.items[:-1]) % 4
    array([1, 1, 1, 1, 1], dtype=int32)
    """
    if min(n_items, n_users, sessions_per_user, session_length) < 1:
        raise DataError("A cycle needs at least one item, one user, one session a user and one event a session.")
    events = sessions_per_user * session_length
    begin = np.random.default_rng(seed).integers(n_items, size=(n_users, 1))
    step = np.arange(events)
    times = start + step // session_length * _DAY + step % session_length * _SECOND
    later = np.arange(n_users)[:, None] * session_length * _SECOND
    return SessionLog(
        items=((begin + step) % n_items).astype(np.int32).ravel(),
        times=(times + later).astype(np.int64).ravel(),
        session_offsets=np.arange(0, n_users * events + 1, session_length),
        user_offsets=np.arange(0, n_users * sessions_per_user + 1, sessions_per_user),
        vocabulary=Vocabulary(np.arange(n_items)),
    )
