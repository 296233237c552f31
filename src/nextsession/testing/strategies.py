"""Hypothesis strategies for logs, for property tests here and in other packages.

Vocabularies are tiny, so that items repeat and chance meetings are common; times are close, so
that ties and gaps of exactly the critical length occur.  Needs `hypothesis` to be installed.
"""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Id, Vocabulary

MINUTE = 60_000
START = 1_700_000_000_000  # ms; some day in 2023


@st.composite
def vocabularies(draw: st.DrawFn, *, least: int = 1, most: int = 6) -> Vocabulary:
    """Draw a vocabulary of distinct ids, all integers or all strings, in any order."""
    kind: st.SearchStrategy[Any] = draw(
        st.sampled_from([st.integers(-5, 20), st.text("abcé,\U0001f9ac", min_size=1, max_size=3)])
    )
    ids = draw(st.lists(kind, min_size=least, max_size=most, unique=True))
    return Vocabulary(np.array(ids, dtype=np.int64 if all(isinstance(x, int) for x in ids) else object))


@st.composite
def nested_ids(
    draw: st.DrawFn, *, users: int = 4, sessions: int = 3, events: int = 4, empty_users: bool = True
) -> list[list[list[Id]]]:
    """Draw what `SessionLog.from_lists` takes: users, their sessions, the ids in each."""
    ids = draw(vocabularies()).ids.tolist()
    session = st.lists(st.sampled_from(ids), min_size=1, max_size=events)
    return draw(st.lists(st.lists(session, min_size=0 if empty_users else 1, max_size=sessions), max_size=users))


@st.composite
def logs(
    draw: st.DrawFn,
    *,
    users: int = 4,
    sessions: int = 3,
    events: int = 4,
    empty_users: bool = True,
    labels: bool = True,
    ties: bool = True,
    overlaps: bool = False,
    extras: bool = False,
    vocabulary: Vocabulary | None = None,
) -> SessionLog:
    """Draw a log that keeps every rule of `SessionLog`.

    Args:
        draw: Given by hypothesis.
        users: Most rows.
        sessions: Most sessions of a row.
        events: Most events of a session.
        empty_users: May rows have no event?
        labels: May events be ignored (label 0)?
        ties: May events share an instant?
        overlaps: May a session of a user begin before the last one ended, as sessions given by id do?
        extras: Add actions and a context feature?
        vocabulary: The items; drawn if not given.
    """
    items = draw(vocabularies()) if vocabulary is None else vocabulary
    per_user = draw(st.lists(st.integers(0 if empty_users else 1, sessions), max_size=users))
    lengths = draw(st.lists(st.integers(1, events), min_size=sum(per_user), max_size=sum(per_user)))
    n = sum(lengths)
    codes = draw(st.lists(st.integers(0, len(items) - 1), min_size=n, max_size=n))
    steps = draw(st.lists(st.integers(0 if ties else 1, 3), min_size=n, max_size=n))
    return SessionLog(
        items=np.array(codes, np.int32),
        times=START + 10 * MINUTE * np.array(_minutes(per_user, lengths, steps, ties, overlaps), np.int64),
        session_offsets=offsets_of(lengths),
        user_offsets=offsets_of(per_user),
        vocabulary=items,
        labels=np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), np.int8) if labels else None,  # type: ignore[arg-type]
        actions=np.array(codes, np.int16) % 2 if extras else None,
        action_names=("click", "cart") if extras else (),
        features={"place": np.arange(n, dtype=np.float32)} if extras else {},
        users=np.array([f"user {i}" for i in range(len(per_user))], dtype=object),
    )


def _minutes(per_user: list[int], lengths: list[int], steps: list[int], ties: bool, overlaps: bool) -> list[int]:
    """Return the time of each event: with ties every user begins at 0, else nobody before the last user has ended."""
    times: list[int] = []
    session, now = 0, 0
    for count in per_user:
        now = 0 if ties else now
        for length in lengths[session : session + count]:
            for step in steps[len(times) : len(times) + length]:
                now += step
                times.append(now)
            now = times[-length] if overlaps else now
        session += count
    return times
