"""Offline equals online: what is served is what `recommend` says of the same events, in whatever order they came."""

from dataclasses import replace

import numpy as np
import pytest

from nextsession import Runtime, SessionLog, Vocabulary, create, registry
from nextsession.data.sessions import sessionise
from nextsession.errors import UnknownNameError
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import Event, Rules
from nextsession.serving.memory import MemoryStore
from nextsession.serving.questions import Question
from nextsession.serving.served import prepared
from nextsession.testing.subjects import HOUR, N_ITEMS, START, subjects, training_log, walks

GAP = 30 * 60_000
NOW = START + 40_000 * HOUR
TINY = {"dim": 8, "max_length": 12, "epochs": 1, "batch_size": 16}
MODELS = {
    "popular": {},
    "recent": {"half_life": "7d"},
    "sessionpopular": {},
    "markov": {"order": 2},
    "vsknn": {"neighbours": 20, "sample": 50},
    "vstan": {},
    "vmisknn": {},
    "gru4rec": {"layers": (12,), "batch_size": 4, "n_sample": 8, "epochs": 2},
    "sasrec": TINY,
    "hstuplus": TINY,
}


def visitors(number, seed):
    """Events of many visitors, some of unknown items, some ignored; no two of a visitor at one instant."""
    rng = np.random.default_rng(seed)
    vocabulary = Vocabulary(np.array([f"item {i:02}" for i in range(N_ITEMS)] + ["unknown"], dtype=object))
    log = walks(vocabulary, seed=seed, users=number, start=START + 4000 * HOUR)
    rows = np.repeat(np.arange(number), np.diff(log.event_offsets))
    items = np.where(rng.random(log.n_events) < 0.1, N_ITEMS, log.items)
    labels = (rng.random(log.n_events) < 0.85).astype(np.int64)
    ids = vocabulary.ids[items].tolist()
    return [
        Event(f"e{i}", f"visitor {row:05}", item, time, "click", label)
        for i, (row, item, time, label) in enumerate(
            zip(rows.tolist(), ids, log.times.tolist(), labels.tolist(), strict=True)
        )
    ]


def offline(events):
    """The log that training would make of the events."""
    log = sessionise([e.visitor for e in events], [e.item for e in events], [e.time for e in events], gap=GAP)
    label = {(e.visitor, e.time): e.label for e in events}
    rows = np.repeat(np.arange(len(log)), np.diff(log.event_offsets))
    keys = zip(log.users[rows].tolist(), log.times.tolist(), strict=True)
    return replace(log, labels=np.array([label[key] for key in keys], np.int8))


@pytest.fixture(scope="module")
def many():
    return visitors(2000, seed=11)


def engine_of(model, events, order, batch):
    engine = Engine(Arms({"main": (prepared(model, gap=GAP), 1.0)}, now=NOW), MemoryStore(Rules(keep=500, ttl=NOW)))
    arriving = [events[i] for i in order]
    for place in range(0, len(arriving), batch):
        engine.store.append(arriving[place : place + batch], NOW)
    return engine


def served_as_recommended(model, events, seed, rows=None):
    """Ask for every visitor, or those of some rows; each list must be what `recommend` says, to the last bit."""
    rng = np.random.default_rng(seed)
    engine = engine_of(model, events, rng.permutation(len(events)), batch=97)
    log = offline(events)
    for row in range(len(log)) if rows is None else rng.choice(len(log), rows, replace=False).tolist():
        exclude = ("nothing", "session", "history")[row % 3]
        expected = model.recommend(log.rows(row, row + 1), 10, asked_at=NOW, exclude=exclude)
        question = Question(visitor=str(log.users[row]), k=10, exclude=exclude, shown=False)
        answer = engine.recommend(question, NOW)
        assert answer.degraded == ()
        listed = [one for one in answer.items if one.source == "model"]
        assert [one.item for one in listed] == next(iter(expected)), f"visitor {log.users[row]}, exclude={exclude}"
        assert [one.score for one in listed] == expected.scores[0][: len(listed)].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_the_served_list_is_what_recommend_says(name, many):
    model = create(name, **MODELS[name]).fit(training_log(users=60), runtime=Runtime(seed=3))
    served_as_recommended(model, many, seed=7, rows=400 if name in ("sasrec", "hstuplus") else None)


@pytest.mark.parametrize("name", MODELS)
def test_questions_that_came_together_are_answered_as_those_that_came_alone(name, many):
    """To the rounding of a product of matrices; only where scores are that near may places be changed."""
    model = create(name, **MODELS[name]).fit(training_log(users=60), runtime=Runtime(seed=3))
    engine = engine_of(model, many, range(len(many)), batch=500)
    names = sorted({event.visitor for event in many})[:150]
    questions = [
        Question(
            visitor=None if i % 11 == 0 else name,
            k=1 + i % 13,
            exclude=("nothing", "session", "history")[i % 3],
            deny=("item 03",) if i % 4 else (),
            allow=None if i % 5 else tuple(f"item {j:02}" for j in range(N_ITEMS - i % 2)),
            arm="none" if i % 17 == 5 else None,
            shown=False,
        )
        for i, name in enumerate(names)
    ]
    alone = [None if one.arm else engine.ask(one, NOW).answer for one in questions]
    for start in range(0, len(questions), 25):
        together = engine.ask_all([(one, NOW) for one in questions[start : start + 25]])
        for answer, expected in zip(together, alone[start : start + 25], strict=True):
            if expected is None:
                assert isinstance(answer, UnknownNameError)
                continue
            found = answer.answer.items
            assert answer.answer.degraded == ()
            assert [one.source for one in found] == [one.source for one in expected.items]
            scores = [[np.nan if one.score is None else one.score for one in x] for x in (found, expected.items)]
            most = np.nanmax(np.abs(scores[1]), initial=1.0)  # a small score is the difference of greater numbers
            np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-6 * most)
            for place, (one, other) in enumerate(zip(found, expected.items, strict=True)):
                near = [x for x in expected.items if x.score is not None and one.score is not None]
                assert one.item == other.item or any(
                    x is not other and abs(x.score - one.score) < 1e-5 + 1e-5 * abs(one.score) for x in near
                ), f"place {place}"


def test_a_compiled_network_is_served_as_it_recommends(many, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `runtime`")
    pytest.importorskip("onnxscript", reason="needs the extra `compile`")
    from nextsession.compiling import compile_model
    from nextsession.runtime.kept import load_runtime

    model = create("sasrec", **TINY, layers=1).fit(training_log(users=60), runtime=Runtime(seed=3))
    model.save(tmp_path / "model")
    compile_model(model, tmp_path / "model")
    served_as_recommended(load_runtime(tmp_path / "model"), many, seed=7, rows=400)


@pytest.fixture(scope="module")
def very_many():
    return visitors(10_000, seed=13)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names())
def test_the_served_list_is_what_recommend_says_for_10_000_visitors_and_every_model(name, very_many):
    model = subjects(registry.model_class(name))[0].fit(training_log(users=60), seed=3)
    served_as_recommended(model, very_many, seed=17)


def test_the_order_of_arrival_changes_nothing(many):
    model = create("vmisknn").fit(training_log(users=60))
    some = [event for event in many if event.visitor < "visitor 00300"]
    orders = [range(len(some)), range(len(some) - 1, -1, -1), np.random.default_rng(1).permutation(len(some)).tolist()]
    engines = [engine_of(model, some, order, batch) for order, batch in zip(orders, (1, 50, 7), strict=True)]
    for visitor in sorted({event.visitor for event in some}):
        answers = [engine.recommend(Question(visitor=visitor, shown=False), NOW).items for engine in engines]
        assert answers[0] == answers[1] == answers[2]


def test_an_event_that_comes_with_the_question_is_part_of_the_history():
    model = create("markov").fit(training_log(users=60))
    engine = engine_of(model, [], [], 1)
    first = Event("a", "ann", "item 03", NOW - 5)
    answer = engine.recommend(Question(visitor="ann", event=first, k=5, shown=False), NOW)
    log = SessionLog.from_lists([[["item 03"]]], times=[[[NOW - 5]]])
    expected = next(iter(model.recommend(log, 5, asked_at=NOW, exclude="session")))
    assert [one.item for one in answer.items if one.source == "model"] == expected
    assert answer.recorded.status == "accepted"
    again = engine.recommend(Question(visitor="ann", event=first, k=5, shown=False), NOW + 1)
    assert again.recorded.status == "duplicate"
    assert again.items == answer.items
    assert len(engine.store.record("ann", NOW).events) == 1
