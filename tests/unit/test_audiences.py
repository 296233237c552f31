"""Audiences: against loops over all events, with nothing from the instant on, and the same in pieces as in one."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nextsession.audiences import HALF_LIFE, REACH, Audience
from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.testing.strategies import MINUTE, START, logs

V, A = 6, 3
NAMES = Vocabulary(np.arange(V))
HOUR = 60 * MINUTE
INSTANTS = st.integers(START - HOUR, START + 60 * HOUR)


def with_vectors(log: SessionLog) -> Audience:
    """Return an audience whose vectors are drawn, since a small log teaches none."""
    found = Audience.of(log, A, 0)
    vectors = np.random.default_rng(1).standard_normal((V, A)).astype(np.float32)
    vectors[0] = 0
    vectors[1:] /= np.linalg.norm(vectors[1:], axis=1, keepdims=True)
    return untold(replace(found, vectors=vectors)).joined(log)


def untold(audience: Audience) -> Audience:
    """Return one with the same vectors that knows of no event."""
    nothing = {name: getattr(audience, name)[:0] for name in ("times", "items", "people", "names", "standing")}
    return replace(audience, **nothing)


def person_slowly(vectors: np.ndarray, wanted: list[int], centre: np.ndarray) -> np.ndarray:
    total = np.zeros(A)
    for item in wanted:
        total = 0.95 * total + vectors[item]
    return total / np.linalg.norm(total) - centre if np.abs(total).max() > 1e-6 else np.zeros(A)


def at_slowly(audience: Audience, log: SessionLog, instant: int) -> np.ndarray:
    found, weights = np.zeros((V, A)), np.zeros(V)
    for u in range(len(log)):
        row = log.rows(u, u + 1)
        wanted: list[int] = []
        for item, time, label in zip(row.items.tolist(), row.times.tolist(), row.labels.tolist(), strict=True):
            if label != 1:
                continue
            if instant - REACH <= time < instant:
                weight = 2 ** ((time - instant) / HALF_LIFE)
                weights[item] += weight
                found[item] += weight * person_slowly(audience.vectors, wanted, audience.centre)
            wanted.append(item)
    return found / np.where(weights > 0, weights + 3, 1)[:, None]


@given(log=logs(vocabulary=NAMES, empty_users=True), instant=INSTANTS)
def test_an_audience_is_the_mean_of_its_people_of_late(log: SessionLog, instant: int) -> None:
    audience = with_vectors(log)
    np.testing.assert_allclose(audience.at(instant), at_slowly(audience, log, instant), atol=3e-3)


@given(log=logs(vocabulary=NAMES, empty_users=True))
def test_a_person_is_what_was_wanted_before(log: SessionLog) -> None:
    audience = with_vectors(log)
    found = audience.persons(log)
    for u in range(len(log)):
        row = log.rows(u, u + 1)
        expected = person_slowly(audience.vectors, row.items[row.labels == 1].tolist(), audience.centre)
        np.testing.assert_allclose(found[u], expected, atol=1e-5)


@given(log=logs(vocabulary=NAMES), instant=INSTANTS)
def test_nothing_at_or_after_the_instant_is_known(log: SessionLog, instant: int) -> None:
    whole = with_vectors(log)
    told = untold(whole).joined(log.before(instant, keep_users=True))
    np.testing.assert_allclose(told.at(instant), untold(whole).joined(log).at(instant), atol=1e-6)


@given(log=logs(vocabulary=NAMES), cut=INSTANTS, instant=INSTANTS)
def test_people_go_on_from_where_they_stood(log: SessionLog, cut: int, instant: int) -> None:
    """Told in two pieces it is as if it had been told in one, up to the rounding of what is kept of a person."""
    whole = with_vectors(log)
    told = untold(whole).joined(log.events(log.times < cut)).joined(log.events(log.times >= cut))
    again = Audience.restored(told.arrays())
    assert again is not None
    np.testing.assert_allclose(told.at(instant), whole.at(instant), atol=2e-2)
    np.testing.assert_array_equal(again.at(instant), told.at(instant))


def test_vectors_tell_circles_of_people_apart_and_leave_out_what_few_wanted() -> None:
    rng = np.random.default_rng(0)
    rows = [[[int(rng.integers(3)) + 3 * (u % 2) for _ in range(4)]] for u in range(60)]
    rows[0][0].append(6)
    log = SessionLog.from_lists(rows, vocabulary=Vocabulary(np.arange(8)))
    vectors = Audience.of(log, 4, 0).vectors
    likeness = vectors @ vectors.T
    assert likeness[:3, :3].min() > likeness[:3, 3:6].max()
    assert likeness[3:6, 3:6].min() > likeness[:3, 3:6].max()
    assert not vectors[6:].any()


def test_new_items_are_met_by_the_people_who_want_them() -> None:
    rng = np.random.default_rng(0)
    rows = [[[int(rng.integers(3)) + 3 * (u % 2) for _ in range(4)]] for u in range(60)]
    times = [[[START + MINUTE * i for i in range(4)]] for _ in rows]
    log = SessionLog.from_lists(rows, times=times, vocabulary=Vocabulary(np.arange(6)))
    audience = Audience.of(log, 4, 0)
    news = SessionLog.from_lists(
        [[[6 + u % 2]] for u in range(20)], times=[[[START + HOUR]]] * 20, vocabulary=Vocabulary(np.arange(8))
    )
    found = audience.joined(news)
    likes = found.persons(log) @ found.at(START + 2 * HOUR).T
    assert (likes[::2, 6] > likes[::2, 7]).all()
    assert (likes[1::2, 7] > likes[1::2, 6]).all()


def test_ids_of_people_are_not_kept() -> None:
    log = SessionLog.from_lists([[["a"]], [["b"]]])
    log = replace(log, users=np.array(["ann@example.org", "bob"]))
    arrays = Audience.of(log, 2, 0).arrays()
    assert len(arrays["audience/names"]) == 2
    assert not any(b"ann@example.org" in array.tobytes() for array in arrays.values())
    assert all(array.dtype.kind in "uif" for array in arrays.values())
