"""The counting models against loops over dictionaries, written straight from the definitions."""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextsession import SessionLog, Vocabulary, create
from nextsession.counting import Table, shares, weights
from nextsession.errors import ConfigError, DataError
from nextsession.scores import tie_key
from nextsession.testing.strategies import MINUTE, START, logs

ITEMS = Vocabulary(np.array([f"i{n}" for n in range(7)], dtype=object))
HOUR = 3_600_000


def train_logs(**kwargs):
    some = logs(vocabulary=ITEMS, labels=False, users=5, events=6, **kwargs)
    return some.filter(lambda log: log.n_events > 0)


def ask_logs():
    return logs(vocabulary=ITEMS, labels=False, users=4, events=6)


# -- the slow twins: a log is a list of users, each a list of sessions, each a list of items -------------------------


def nested(log):
    return [
        [
            log.items[log.session_offsets[s] : log.session_offsets[s + 1]].tolist()
            for s in range(log.user_offsets[u], log.user_offsets[u + 1])
        ]
        for u in range(len(log))
    ]


def sessions_of(log):
    return [session for user in nested(log) for session in user]


def last_session(user):
    return user[-1] if user else []


def best(row, n):
    """The `n` best of a dictionary of scores, compared as float32, ties as in lists."""
    return dict(sorted(row.items(), key=lambda pair: (-np.float32(pair[1]), tie_key(pair[0])))[:n])


WEIGHT = {
    "same": lambda k: 1.0,
    "div": lambda k: 1 / k,
    "linear": lambda k: max(0.0, 1 - k / 10),
    "log": lambda k: 1 / math.log10(k + 1.7),
    "quadratic": lambda k: 1 / k**2,
}


def sequential_rules(log, steps, kind):
    rules = defaultdict(lambda: defaultdict(float))
    for session in sessions_of(log):
        for j, b in enumerate(session):
            for k in range(1, min(steps, j) + 1):
                if WEIGHT[kind](k) > 0:
                    rules[session[j - k]][b] += WEIGHT[kind](k)
    return rules


def association_rules(log):
    rules = defaultdict(lambda: defaultdict(float))
    for session in sessions_of(log):
        for j, b in enumerate(session):
            for a in session[:j] + session[j + 1 :]:
                rules[a][b] += 1
    return rules


def votes(rules, user, pruning, reach, kind):
    scores = defaultdict(float)
    for k, item in enumerate(reversed(last_session(user)[-reach:]), start=1):
        for b, value in best(rules.get(item, {}), pruning).items():
            if WEIGHT[kind](k) > 0:
                scores[b] += WEIGHT[kind](k) * value
    return scores


def markov(log, user, order, smoothing, pruning):
    counts = defaultdict(lambda: defaultdict(float))
    for session in sessions_of(log):
        for e in range(1, len(session)):
            for n in range(1, min(order, e) + 1):
                counts[tuple(session[e - n : e])][session[e]] += 1
    session = last_session(user)
    contexts = [tuple(session[-n:]) for n in range(min(order, len(session)), 0, -1)]
    row = next((counts[c] for c in contexts if c in counts), {})
    total, kept = sum(row.values()), best(row, pruning)
    listed = kept if smoothing == 0 else range(log.n_items)
    return {i: (kept.get(i, 0) + smoothing) / (total + smoothing * log.n_items) for i in listed}


def item_knn(log, user, r, alpha, neighbours, official):
    support, pairs = defaultdict(int), defaultdict(lambda: defaultdict(int))
    for session in sessions_of(log):
        for i in session if official else set(session):
            support[i] += 1
            for j in set(session) - {i}:
                pairs[i][j] += 1
    session = last_session(user)
    if not session:
        return {}
    i = session[-1]
    near = {j: n / ((support[i] + r) ** alpha * (support[j] + r) ** (1 - alpha)) for j, n in pairs[i].items()}
    return best(near, neighbours)


def tifu_vector(user, group, within, between):
    groups = []
    rest = list(user)
    while rest:  # from the last session, so that the oldest group is the short one
        groups.insert(0, rest[-group:])
        rest = rest[:-group]
    vector = defaultdict(float)
    for g, sessions in enumerate(groups):
        for s, session in enumerate(sessions):
            for i in set(session):
                weight = within ** (len(sessions) - 1 - s) / len(sessions)
                vector[i] += between ** (len(groups) - 1 - g) / len(groups) * weight
    return vector


def tifu_knn(log, user, config):
    def vector_of(sessions):
        return tifu_vector(sessions, config.group, config.within_decay, config.group_decay)

    people = [vector_of(sessions) for sessions in nested(log) if sessions]
    own = vector_of(user)
    distances = [sum((own[i] - other[i]) ** 2 for i in range(log.n_items)) for other in people]
    farthest = sorted(distances)[min(config.neighbours, len(people)) - 1] if user else math.inf
    near = [other for other, d in zip(people, distances, strict=True) if d <= farthest + 1e-12]
    scores = {
        i: config.alpha * own[i] + (1 - config.alpha) * sum(other[i] for other in near) / len(near)
        for i in range(log.n_items)
    }
    return {i: score for i, score in scores.items() if score > 0}


def same(model, log, asked, twin):
    """The model fitted on `log` scores every question as `twin(log, user)` does."""
    found = model.scores(asked).dense()
    for b, user in enumerate(nested(asked)):
        expected = np.full(log.n_items, -np.inf)
        for item, score in twin(log, user).items():
            expected[item] = score
        np.testing.assert_allclose(found[b], expected, rtol=1e-5, atol=1e-6, err_msg=f"{user} after {nested(log)}")


# -- equality -------------------------------------------------------------------------------------------------------


@given(
    train_logs(), ask_logs(), st.sampled_from(list(WEIGHT)), st.integers(1, 12), st.integers(1, 4), st.integers(1, 3)
)
def test_sequential_rules(log, asked, kind, steps, pruning, reach):
    model = create(
        "sequentialrules", weighting=kind, steps=steps, pruning=pruning, last_in_session=reach, session_weighting=kind
    ).fit(log)
    rules = sequential_rules(log, steps, kind)
    same(model, log, asked, lambda _, user: votes(rules, user, pruning, reach, kind))


@given(train_logs(), ask_logs(), st.one_of(st.none(), st.integers(1, 4)), st.integers(1, 3))
def test_association_rules(log, asked, pruning, reach):
    model = create("associationrules", pruning=pruning, last_in_session=reach).fit(log)
    rules = association_rules(log)
    same(model, log, asked, lambda _, user: votes(rules, user, pruning, reach, "div"))


@given(
    train_logs(), ask_logs(), st.integers(1, 4), st.sampled_from([0.0, 0.5]), st.one_of(st.none(), st.integers(1, 3))
)
def test_markov(log, asked, order, smoothing, pruning):
    model = create("markov", order=order, smoothing=smoothing, pruning=pruning).fit(log)
    same(model, log, asked, lambda log, user: markov(log, user, order, smoothing, pruning))


@given(
    train_logs(),
    ask_logs(),
    st.sampled_from([0.0, 20.0]),
    st.sampled_from([0.5, 0.8]),
    st.integers(1, 4),
    st.booleans(),
)
def test_item_knn(log, asked, r, alpha, neighbours, official):
    model = create("itemknn", regularisation=r, alpha=alpha, neighbours=neighbours, official_counts=official).fit(log)
    same(model, log, asked, lambda log, user: item_knn(log, user, r, alpha, neighbours, official))


@given(train_logs(), ask_logs())
def test_session_popular(log, asked):
    model = create("sessionpopular").fit(log)
    support = np.bincount(log.items, minlength=log.n_items)
    found = model.scores(asked).dense()
    for b, user in enumerate(nested(asked)):
        counts = np.bincount(np.array(last_session(user), int), minlength=log.n_items)
        assert np.array_equal(np.floor(found[b]), counts)
        official = [(c, s / (1 + s)) for c, s in zip(counts, support, strict=True)]
        order = sorted(range(log.n_items), key=lambda i: (official[i], -tie_key(i)), reverse=True)
        assert model.recommend(asked.take([b]), log.n_items).items[0].tolist() == order


@given(train_logs(), ask_logs(), st.sampled_from([1.0, 0.8, 0.5]), st.sampled_from([0.0, 0.5]))
def test_frequent(log, asked, decay, popularity):
    model = create("frequent", decay=decay, popularity=popularity).fit(log)
    share = shares(np.bincount(log.items, minlength=log.n_items))

    def twin(_, user):
        scores = {i: popularity * share[i] for i in range(log.n_items)}
        for since, session in enumerate(reversed(user)):
            for i in session:
                scores[i] += decay**since
        return scores

    same(model, log, asked, twin)


@given(
    train_logs(), ask_logs(), st.integers(1, 3), st.sampled_from([1.0, 0.9]), st.sampled_from([1.0, 0.7]),
    st.integers(1, 5), st.sampled_from([0.0, 0.7, 1.0]),
)  # fmt: skip
def test_tifuknn(log, asked, group, within, between, neighbours, alpha):
    model = create(
        "tifuknn", group=group, within_decay=within, group_decay=between, neighbours=neighbours, alpha=alpha
    ).fit(log)
    same(model, log, asked, lambda log, user: tifu_knn(log, user, model.config))


def recent(log, instant, window, half_life):
    """Scores of `recent` by its definition."""
    events = [(i, t) for i, t in zip(log.items.tolist(), log.times.tolist(), strict=True) if t < instant]
    decayed = defaultdict(float)
    for i, t in events:
        decayed[i] += 2 ** ((t - instant) / (half_life or window))
    scores = {i: math.log2(x) for i, x in decayed.items()}
    if window is None:
        return scores
    counts = {i: sum(1 for j, t in events if i == j and t >= instant - window) for i in scores}
    return {i: counts[i] + (0.5 / (1 - x) if x < 0 else 1 - 0.5 / (1 + x)) for i, x in scores.items()}


@given(train_logs(), st.lists(st.integers(-2, 20), max_size=6), st.sampled_from([10, 25, 60]), st.booleans())
def test_recent(log, steps, minutes, windowed):
    """Questions lie before, in the midst of and after the log, at the very instants of events too."""
    window, half_life = (minutes * MINUTE, None) if windowed else (None, minutes * MINUTE)
    model = create("recent", **({"window": window} if windowed else {"half_life": half_life})).fit(log)
    instants = START + 5 * MINUTE * np.array(steps, np.int64)
    asked = SessionLog.from_lists([[]] * len(steps), vocabulary=ITEMS)
    found = model.scores(asked, asked_at=instants).dense()
    for b, instant in enumerate(instants.tolist()):
        expected = np.full(log.n_items, -np.inf)
        for item, score in recent(log, instant, window, half_life).items():
            expected[item] = score
        np.testing.assert_allclose(found[b], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [{"window": "3h"}, {"half_life": "30m"}])
def test_recent_over_photographs(kind):
    """Long logs are entered at photographs; the answers are those of a walk from the beginning."""
    rng = np.random.default_rng(1)
    n = 20_000
    log = one_session(rng.integers(0, 7, n), START + np.sort(rng.integers(0, 30 * HOUR, n)))
    model = create("recent", **kind).fit(log)
    assert len(model.decayed_) > 4
    instants = START + rng.integers(-HOUR, 31 * HOUR, 12)
    found = model.scores(SessionLog.from_lists([[]] * 12, vocabulary=ITEMS), asked_at=instants).dense()
    for b, instant in enumerate(instants.tolist()):
        expected = recent(log, instant, model.config.window, model.config.half_life)
        np.testing.assert_allclose(
            found[b], [expected.get(i, -np.inf) for i in range(log.n_items)], rtol=1e-5, atol=1e-5
        )


def one_session(items, times):
    n = len(items)
    return SessionLog(
        items=np.asarray(items, np.int32),
        times=np.asarray(times, np.int64),
        session_offsets=np.array([0, n]),
        user_offsets=np.array([0, 1]),
        vocabulary=ITEMS,
    )


# -- learning on ----------------------------------------------------------------------------------------------------

LEARNERS = [
    ("recent", {"window": "30m"}),
    ("recent", {"half_life": "30m"}),
    ("sessionpopular", {}),
    ("frequent", {}),
    ("popular", {}),
    ("markov", {"order": 3}),
    ("markov", {"smoothing": 1.0}),
    ("associationrules", {"pruning": 3}),
    ("sequentialrules", {}),
    ("itemknn", {}),
    ("itemknn", {"official_counts": True}),
]


@pytest.mark.parametrize(("name", "kwargs"), LEARNERS)
@settings(max_examples=25)
@given(st.data())
def test_learning_on_is_learning_all_at_once(name, kwargs, data):
    """Sessions learnt in two halves teach the same as all together, new items included."""
    log = data.draw(train_logs().filter(lambda log: log.n_sessions > 1))
    first = np.arange(log.n_sessions) < log.n_sessions // 2
    half, rest = log.sessions(first).compact(), log.sessions(~first)
    apart = create(name, **kwargs).fit(half).update(rest)
    once = create(name, **kwargs).fit(log.recode(apart.vocabulary_))
    asked = data.draw(ask_logs())
    later = int(np.concatenate([log.times, asked.times]).max()) + HOUR
    np.testing.assert_allclose(
        apart.scores(asked, asked_at=later).dense(), once.scores(asked, asked_at=later).dense(), rtol=1e-5, atol=1e-5
    )


# -- what must never happen -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [{"window": "1h"}, {"window": "100d"}, {"half_life": "1h"}])
def test_recent_does_not_see_the_instant_or_later(kind):
    """A marker that explodes at the very instant of the question, and after it, leaves every score as it was."""
    now = START + 10 * HOUR
    past = one_session([0, 1, 1, 2], [START, now - HOUR, now - 60, now - 1])
    flood = one_session(
        [0, 1, 1, 2] + [6] * 500, [START, now - HOUR, now - 60, now - 1] + [now] * 250 + [now + 5] * 250
    )
    asked = SessionLog.from_lists([[]], vocabulary=ITEMS)
    without, knowing = (create("recent", **kind).fit(log).scores(asked, asked_at=now).dense() for log in (past, flood))
    np.testing.assert_array_equal(without, knowing)
    assert knowing[0, 6] == -np.inf
    assert create("recent", **kind).fit(flood).scores(asked, asked_at=now + 1).dense()[0].argmax() == 6


def test_recent_counts_the_window_from_its_first_millisecond():
    log = one_session([0, 1, 2], [START, START + 1, START + 2])
    asked = SessionLog.from_lists([[]], vocabulary=ITEMS)
    scores = create("recent", window=HOUR).fit(log).scores(asked, asked_at=START + HOUR + 1).dense()[0]
    assert np.floor(scores[:3]).tolist() == [0, 1, 1]


def test_recent_falls_back_on_what_was_last_wanted():
    log = one_session([0, 0, 0, 1, 2], [START, START, START, START + 20 * HOUR, START + 21 * HOUR])
    asked = SessionLog.from_lists([[]], vocabulary=ITEMS)
    answer = create("recent", window="1h").fit(log).recommend(asked, asked_at=START + 1000 * HOUR)
    assert list(answer) == [["i2", "i1", "i0"]]


def test_counts_beyond_the_whole_numbers_of_float32_go_on_counting():
    log = one_session([0, 1], [START, START + 1])
    model = create("popular").fit(log)
    model.counts_ += 2**24
    for _ in range(2):
        model.update(log)
    assert model.counts_[:2].tolist() == [2**24 + 3] * 2


def test_noop_breaks_ties_as_all_lists_do():
    log = one_session(np.arange(len(ITEMS)), START + np.arange(len(ITEMS)))
    lists = [create(name).fit(log).recommend(log, 5).items.tolist() for name in ("noop", "popular")]
    assert lists[0] == lists[1]


def test_recent_needs_times():
    log = replace(one_session([0, 1], [0, 1]), timed=False)
    with pytest.raises(DataError, match=r"must hold times; this one holds only the order.*Name the column.*'popular'"):
        create("recent").fit(log)


def test_recent_takes_a_window_or_a_half_life():
    with pytest.raises(ConfigError, match="give a window or a half_life, not both"):
        create("recent", window="1h", half_life="1h")
    with pytest.raises(ConfigError, match="half_life"):
        create("recent", half_life=0)
    assert create("recent").config.half_life == 24 * 60 * MINUTE
    assert create("recent", window="1h").config.half_life is None


def test_linear_weights_never_fall_below_nothing():
    assert weights("linear", 40).min() == 0
    log = SessionLog.from_lists([[["a", *"bcdefghijklmn"]]])
    model = create("sequentialrules", weighting="linear", steps=40, pruning=None).fit(log)
    (found,) = model.recommend(SessionLog.from_lists([[["a"]]]), 40)
    assert found == list("bcdefghij")


def test_self_transitions_are_kept():
    log = SessionLog.from_lists([[["a", "a", "a", "b"]]])
    asked = SessionLog.from_lists([[["a"]]])
    for name in ("markov", "sequentialrules", "associationrules"):
        assert list(create(name).fit(log).recommend(asked, 1)) == [["a"]], name
    assert list(create("itemknn").fit(log).recommend(asked, 5)) == [["b"]]


def test_only_what_was_seen_after_the_context_is_listed():
    log = SessionLog.from_lists([[["a", "b"]], [["c", "d"]]])
    for name in ("markov", "sequentialrules", "associationrules", "itemknn"):
        model = create(name).fit(log)
        assert list(model.recommend(SessionLog.from_lists([[["a"]], []]), 5)) == [["b"], []], name


def test_markov_backs_off_to_what_was_seen():
    log = SessionLog.from_lists([[["a", "b", "c"]], [["x", "b", "d"]], [["x", "b", "d"]]])
    model = create("markov", order=2).fit(log)
    asked = SessionLog.from_lists([[["a", "b"]], [["x", "b"]], [["c", "b"]], [["d"]]])
    assert list(model.recommend(asked, 3)) == [["c"], ["d"], ["d", "c"], []]


def test_sums_of_tables():
    one = Table(np.array([0, 2, 2]), np.array([1, 0], np.int32), np.array([2, 1], np.float32))
    two = Table(np.array([0, 1, 2]), np.array([0, 3], np.int32), np.array([4, 5], np.float32))
    total = one.plus(two, 4).best_first(4)
    assert [x.tolist() for x in total] == [[0, 2, 3], [0, 1, 3], [5.0, 2.0, 5.0]]


def test_noop_gives_everybody_the_same_list():
    log = SessionLog.from_lists([[["a", "b", "b", "c", "c", "c"]]])
    model = create("noop", length=2).fit(log)
    assert list(model.recommend(SessionLog.from_lists([[["a"]], [], [["c"]]]), 5)) == [["c", "b"]] * 3


# -- BPR-MF ---------------------------------------------------------------------------------------------------------


def test_bprmf_step_descends_the_loss():
    """One step moves every parameter against the gradient of the loss, found by differences."""
    from nextsession.models.bprmf import _descend

    rng, rate, decay = np.random.default_rng(3), 1e-3, 0.1
    users, items = np.zeros(1, np.int64), np.zeros(1, np.int32)  # one event: the draw can only be (0, 0, not 0)
    start = {"u": rng.normal(size=(1, 3)).astype(np.float32), "v": rng.normal(size=(2, 4)).astype(np.float32)}

    def loss(u, v):
        margin = u[0] @ (v[0, :3] - v[1, :3]) + v[0, 3] - v[1, 3]
        return np.log1p(np.exp(-margin)) + decay / 2 * ((u**2).sum() + (v**2).sum())

    moved = {name: x.copy() for name, x in start.items()}
    _descend(rng, users, items, np.array([0, 1]), np.zeros(1, np.int64), moved["u"], moved["v"], rate, decay)
    for name, x in start.items():
        for place in np.ndindex(x.shape):
            up, down = ({k: a.astype(np.float64) for k, a in start.items()} for _ in range(2))
            up[name][place] += 1e-5
            down[name][place] -= 1e-5
            gradient = (loss(**up) - loss(**down)) / 2e-5
            assert moved[name][place] - x[place] == pytest.approx(-rate * gradient, rel=2e-3, abs=1e-6)


def test_bprmf_negatives_are_never_positives():
    """Where every visitor has taken all items but one, only that one is ever pushed down."""
    log = SessionLog.from_lists([[["a", "b", "c"]]] * 50 + [[["d"]]])
    model = create("bprmf", dim=4, epochs=5, regularisation=0.0).fit(log)
    biases = dict(zip(log.vocabulary.ids.tolist(), model.vectors_[:, -1].tolist(), strict=True))
    assert biases["d"] < 0 < min(biases["a"], biases["b"], biases["c"])
    everything = SessionLog.from_lists([[["a", "b"]]])
    assert np.all(create("bprmf", dim=4).fit(everything).vectors_[:, -1] == 0)  # nothing to rank below


def test_bprmf_finds_two_worlds():
    rng = np.random.default_rng(0)
    worlds = [[f"{w}{i}" for i in range(8)] for w in "xy"]
    log = SessionLog.from_lists([[rng.choice(worlds[u % 2], 4, replace=False).tolist()] for u in range(200)])
    for fold_in in ("mean", "ridge"):
        model = create("bprmf", dim=8, fold_in=fold_in).fit(log)
        answers = model.recommend(SessionLog.from_lists([[worlds[0][:2]], [worlds[1][:2]]]), 6, exclude="session")
        assert [set(a) for a in answers] == [set(w[2:]) for w in worlds], fold_in
