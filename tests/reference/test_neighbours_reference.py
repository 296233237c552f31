"""The neighbour models against loops over dictionaries and sets, written straight from the definitions."""

import heapq
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from math import exp, log, log10, sqrt
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextsession import SessionLog, Vocabulary, create, load

HOUR = 3_600_000
NAMES = ["sknn", "vsknn", "stan", "vstan", "vmisknn"]


class Visit(NamedTuple):
    """A session: when it ended, in hours, and its items."""

    end: int
    items: list[int]


# -- the slow twins: sessions are listed oldest first; of one instant the later in the list is newer -------------


def newest_first(visits: list[Visit]) -> list[Visit]:
    return sorted(visits, key=lambda v: v.end)[::-1]


def asked_about(config, user: list[list[int]], known: set[int]) -> list[int]:
    user = [[i for i in session if i in known] for session in user]
    user = [session for session in user if session]
    question = [i for session in (user if config.reads == "history" else user[-1:]) for i in session]
    return question if config.last is None else question[-config.last :]


def neighbours(config, visits, question, similarity) -> list[tuple[float, Visit]]:
    """The most similar of the most recent sessions that share an item; of equal ones the newer."""
    candidates = [v for v in newest_first(visits) if set(v.items) & set(question)][: config.sample]
    similar = [(similarity(v), v) for v in candidates]
    return sorted([(s, v) for s, v in similar if s > 0], key=lambda pair: -pair[0])[: config.neighbours]


def step_of_latest(question: list[int], items: list[int]) -> int:
    return next(step for step, i in enumerate(reversed(question), start=1) if i in items)


def idf_of(visits: list[Visit], item: int) -> float:
    return log(len(visits) / sum(v.items.count(item) for v in visits))


WEIGHTING = {  # fractions, because sums that are equal must be equal
    "same": lambda p, n: 1,
    "div": lambda p, n: Fraction(p, n),
    "quadratic": lambda p, n: Fraction(p, n) ** 2,
    "log": lambda p, n: 1 / log10((n - p) + 1.7),
    "linear": lambda p, n: max(0, 1 - Fraction(n - p, 10)),
}
DECAY = {
    "same": lambda step: 1.0,
    "div": lambda step: 1 / step,
    "quadratic": lambda step: 1 / step**2,
    "log": lambda step: 1 / log10(step + 1.7),
    "linear": lambda step: max(0.0, 1 - 0.1 * step),
}


def latest_first(weights: dict[int, float], question: list[int]) -> dict[int, float]:
    """The weights in the order in which the items were last seen, so that sums round alike."""
    return {i: weights[i] for i in reversed(question)}


def cosine(weights: dict[int, float], items: list[int]) -> float:
    shared = sum(w for i, w in weights.items() if i in items)
    if shared <= 0:
        return 0.0
    return sqrt(shared**2 / len(set(items))) / sqrt(sum(w * w for w in weights.values()))


def slow_sknn(config, visits, question, now) -> dict[int, float]:
    c = set(question)

    def similarity(v: Visit) -> float:
        n, shared = set(v.items), len(c & set(v.items))
        return shared / len(c | n) if config.similarity == "jaccard" else cosine(dict.fromkeys(c, 1), v.items)

    votes: dict[int, float] = defaultdict(float)
    for s, v in neighbours(config, visits, question, similarity):
        for i in set(v.items):
            votes[i] += s
    return votes


def slow_vsknn(config, visits, question, now) -> dict[int, float]:
    weights = {}
    for p, i in enumerate(question, start=1):
        idf = config.weighting == "idf"
        weights[i] = idf_of(visits, i) if idf else WEIGHTING[config.weighting](p, len(question))
    weights = latest_first(weights, question)

    def similarity(v: Visit) -> float:
        if config.similarity == "vec":
            return sum(w for i, w in weights.items() if i in v.items) / len(weights)
        return cosine(weights, v.items)

    votes: dict[int, float] = defaultdict(float)
    for s, v in neighbours(config, visits, question, similarity):
        decay = DECAY[config.decay](step_of_latest(question, v.items))
        for i in set(v.items):
            votes[i] += s * decay * (1 + config.idf * idf_of(visits, i))
    return votes


def slow_stan(config, visits, question, now) -> dict[int, float]:
    visits = [v for v in visits if v.end * HOUR < now]
    weights = {}
    for p, i in enumerate(question, start=1):
        weights[i] = 1.0 if config.place_decay is None else exp((p - len(question)) / config.place_decay)
    weights = latest_first(weights, question)

    def similarity(v: Visit) -> float:
        age = 1.0 if config.age_decay is None else exp(-(now - v.end * HOUR) / config.age_decay)
        return cosine(weights, v.items) * age

    votes: dict[int, float] = defaultdict(float)
    for s, v in neighbours(config, visits, question, similarity):
        star = max(p for p, i in enumerate(v.items) if i in question)
        for i in set(v.items):
            last = max(p for p, j in enumerate(v.items) if i == j)
            vote = s
            if config.distance_decay is not None:
                vote *= exp(-abs(last - star) / config.distance_decay)
            if config.model_fields_set >= {"idf"}:  # vstan
                vote *= 1 + config.idf * idf_of(visits, i)
                if config.match_decay is not None:
                    vote *= exp((1 - step_of_latest(question, v.items)) / config.match_decay)
            votes[i] += vote
    return votes


def slow_vmisknn(config, visits, question, now) -> dict[int, float]:
    """The published procedure: a heap of candidates by age, walks that stop early."""
    lengths = sorted(len(v.items) for v in visits)
    longest = np.quantile(lengths, config.longest, method="higher")
    numbered = dict(enumerate(sorted(visits, key=lambda v: v.end)))
    postings = defaultdict(list)
    for number in reversed(numbered):
        for i in set(numbered[number].items):
            if len(numbered[number].items) <= longest and len(postings[i]) < config.sample:
                postings[i].append(number)
    similarity: dict[int, float] = {}
    heap: list[int] = []
    seen = set()
    for step, item in enumerate(reversed(question), start=1):
        if item in seen:
            continue
        seen.add(item)
        weight = Fraction(len(question) - step + 1, len(set(question)))
        for number in postings[item]:
            if number in similarity:
                similarity[number] += weight
            elif len(similarity) < config.sample:
                similarity[number] = weight
                heapq.heappush(heap, number)
            elif number > heap[0]:
                del similarity[heapq.heapreplace(heap, number)]
                similarity[number] = weight
            else:
                break
    events = sum(lengths)
    votes: dict[int, float] = defaultdict(float)
    for number in sorted(similarity, key=lambda n: (-similarity[n], -n))[: config.neighbours]:
        items = numbered[number].items
        decay = DECAY[config.decay](step_of_latest(question, items))
        for i in set(items):
            rarity = config.idf * log(events / sum(v.items.count(i) for v in visits)) if config.idf else 1.0
            votes[i] += similarity[number] * decay * rarity
    return votes


SLOW = {"sknn": slow_sknn, "vsknn": slow_vsknn, "stan": slow_stan, "vstan": slow_stan, "vmisknn": slow_vmisknn}


# -- what they are compared on ------------------------------------------------------------------


items = st.integers(0, 6)
visits = st.lists(st.builds(Visit, st.integers(1, 6), st.lists(items, min_size=1, max_size=7)), min_size=1, max_size=12)
users = st.lists(st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=13), max_size=2), min_size=1, max_size=3)
scale = st.none() | st.sampled_from([0.7, 2.0])
shared_settings = {
    "neighbours": st.integers(1, 6),
    "sample": st.integers(1, 8),
    "reads": st.sampled_from(["session", "history"]),
    "last": st.none() | st.integers(1, 4),
}
kinds = st.sampled_from(list(DECAY))
stan_settings = shared_settings | {
    "place_decay": scale,
    "age_decay": st.none() | st.sampled_from([HOUR, 7 * HOUR]),
    "distance_decay": scale,
}
SETTINGS = {
    "sknn": shared_settings | {"similarity": st.sampled_from(["jaccard", "cosine"])},
    "vsknn": shared_settings
    | {
        "similarity": st.sampled_from(["vec", "cosine"]),
        "weighting": st.sampled_from([*WEIGHTING, "idf"]),
        "decay": kinds,
        "idf": st.sampled_from([0.0, 1.0]),
    },
    "stan": stan_settings,
    "vstan": stan_settings | {"match_decay": scale, "idf": st.sampled_from([0.0, 5.0])},
    "vmisknn": shared_settings
    | {"decay": kinds, "idf": st.sampled_from([0.0, 2.0]), "longest": st.sampled_from([0.5, 1.0])},
}


def log_of(sessions: list[Visit]) -> SessionLog:
    return SessionLog.from_lists(
        [[v.items] for v in sessions], times=[[[v.end * HOUR] * len(v.items)] for v in sessions]
    )


def histories_of(asked: list[list[list[int]]]) -> SessionLog:
    vocabulary = Vocabulary.of(np.arange(100))
    return SessionLog.from_lists(
        asked, vocabulary=vocabulary, times=[[[0] * len(session) for session in user] for user in asked]
    )


def rows_of(model, asked, now: int) -> list[dict[int, float]]:
    found = model.scores(histories_of(asked), asked_at=now)
    ids = model.vocabulary_.decode(found.items).tolist()
    pairs = list(zip(ids, found.values.tolist(), strict=True))
    return [dict(pairs[a:b]) for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_fast_is_slow(name, data):
    sessions, asked = data.draw(visits), data.draw(users)
    now = data.draw(st.integers(1, 8)) * HOUR
    model = create(name, **data.draw(st.fixed_dictionaries(SETTINGS[name]))).fit(log_of(sessions))
    known = {i for v in sessions for i in v.items}
    for user, found in zip(asked, rows_of(model, asked, now), strict=True):
        question = asked_about(model.config, user, known)
        expected = SLOW[name](model.config, sessions, question, now) if question else {}
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(visits, users, st.none() | st.integers(1, 4), kinds, st.integers(1, 6))
def test_vmisknn_without_limits_is_vsknn(sessions, asked, last, decay, k):
    same = {"neighbours": k, "sample": 10_000, "last": last, "decay": decay, "idf": 0.0}
    vmis = create("vmisknn", longest=1.0, **same).fit(log_of(sessions))
    vsknn = create("vsknn", weighting="div", similarity="vec", **same).fit(log_of(sessions))
    for one, other in zip(rows_of(vmis, asked, 9 * HOUR), rows_of(vsknn, asked, 9 * HOUR), strict=True):
        top = max(one.values(), default=1.0) or 1.0, max(other.values(), default=1.0) or 1.0
        assert {i: s / top[0] for i, s in one.items()} == pytest.approx({i: s / top[1] for i, s in other.items()})


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(early=visits, late=visits, asked=users)
def test_learning_on_is_learning_everything(name, early, late, asked):
    late = [Visit(v.end + 6, [i + 1 for i in v.items]) for v in late]
    one = create(name, sample=5, neighbours=3).fit(log_of(early)).update(log_of(late))
    other = create(name, sample=5, neighbours=3).fit(log_of(early + late))
    for a, b in zip(rows_of(one, asked, 13 * HOUR), rows_of(other, asked, 13 * HOUR), strict=True):
        assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize("name", ["stan", "vstan"])
@settings(max_examples=40, deadline=None)
@given(sessions=visits, asked=users, hour=st.integers(2, 7))
def test_only_sessions_that_ended_before_the_question_exist(name, sessions, asked, hour):
    past = [v for v in sessions if v.end < hour] or [Visit(1, [6])]
    knowing = create(name, sample=4, neighbours=2).fit(log_of([*past, *(v for v in sessions if v.end >= hour)]))
    ignorant = create(name, sample=4, neighbours=2).fit(log_of(past))
    born_later = {i for v in sessions for i in v.items} - {i for v in past for i in v.items}
    for user in asked:  # an unborn item takes a place in the question where it is known, so leave it out
        asked_now = [[i for i in session if i not in born_later] for session in user]
        (a,), (b,) = rows_of(knowing, [asked_now], hour * HOUR), rows_of(ignorant, [asked_now], hour * HOUR)
        assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_of_equal_sessions_the_more_recent_votes_and_of_one_instant_the_one_further_down(name):
    model = create(name, neighbours=1).fit(log_of([Visit(3, [1, 2]), Visit(3, [1, 3]), Visit(2, [1, 4])]))
    assert set(rows_of(model, [[[1]]], 5 * HOUR)[0]) == {1, 3}
    model.update(log_of([Visit(3, [1, 5])]))
    assert set(rows_of(model, [[[1]]], 5 * HOUR)[0]) == {1, 5}


def test_linear_weights_reach_beyond_the_tenth_item():
    model = create("vsknn", weighting="linear", decay="same", idf=0).fit(
        log_of([Visit(1, [11, 50]), Visit(1, [1, 60])])
    )
    question = list(range(12))
    model.update(log_of([Visit(1, question)]))
    found = rows_of(model, [[question]], 5 * HOUR)[0]
    assert found[50] == pytest.approx(1 / 12)
    assert 60 not in found  # weight 0: no neighbour


def test_a_linear_decay_is_never_negative():
    model = create("vsknn", weighting="same", decay="linear").fit(
        log_of([Visit(1, [0, 50]), Visit(2, list(range(12)))])
    )
    assert rows_of(model, [[list(range(12))]], 5 * HOUR)[0][50] == 0


@pytest.mark.parametrize("name", ["stan", "vstan"])
def test_scores_do_not_vanish_long_after_the_last_session(name):
    model = create(name).fit(log_of([Visit(1, [1, 2]), Visit(900, [1, 3]), Visit(500, [7, 8])]))
    found = rows_of(model, [[[1]]], 200_000 * HOUR)[0]
    assert 0 < found[2] < found[3]


@pytest.mark.parametrize("name", ["stan", "vstan"])
def test_without_times_there_is_no_clock(name, tmp_path):
    log_ = log_of([Visit(1, [1, 2]), Visit(5, [1, 3])])
    model = create(name).fit(replace(log_, timed=False))
    assert set(rows_of(model, [[[1]]], 2 * HOUR)[0]) == {1, 2, 3}
    model.save(tmp_path / "model")
    assert rows_of(load(tmp_path / "model"), [[[1]]], 2 * HOUR) == rows_of(model, [[[1]]], 900 * HOUR)
    assert set(rows_of(create(name).fit(log_), [[[1]]], 2 * HOUR)[0]) == {1, 2}


def test_a_question_may_have_any_number_of_answers():
    sessions = [Visit(h, [0, *range(1 + 500 * h, 501 + 500 * h)]) for h in range(3)]
    model = create("sknn", neighbours=2).fit(log_of(sessions))
    assert [len(row) for row in rows_of(model, [[[0]], [], [[0]]], 9 * HOUR)] == [1001, 0, 1001]


def test_the_session_rather_than_the_history_is_read_unless_told_so():
    log_ = log_of([Visit(1, [1, 11]), Visit(2, [2, 12])])
    asked = [[[1], [2]]]
    assert set(rows_of(create("sknn").fit(log_), asked, 9 * HOUR)[0]) == {2, 12}
    assert set(rows_of(create("sknn", reads="history").fit(log_), asked, 9 * HOUR)[0]) == {1, 11, 2, 12}
