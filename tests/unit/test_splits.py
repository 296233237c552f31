from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from nextsession import tasks
from nextsession.data.cases import Blocks, Cases
from nextsession.data.log import SessionLog
from nextsession.errors import ConfigError, DataError
from nextsession.splits import SplitSettings, split, split_ready

HOUR = 3_600_000
DAY = 24 * HOUR


def random_log(seed: int = 0, users: int = 12, marker: tuple[int, int] | None = None) -> SessionLog:
    """Sessions of a week; `marker` adds a session of one item, never seen elsewhere, to a user at an instant."""
    rng = np.random.default_rng(seed)
    items, times = [], []
    for user in range(users):
        starts = np.sort(rng.integers(0, 7 * 24, rng.integers(2, 8))) * HOUR + user
        sessions = [(int(s), [f"i{x}" for x in rng.integers(0, 9, rng.integers(1, 5))]) for s in np.unique(starts)]
        if marker is not None and marker[0] == user:
            sessions = sorted([*sessions, (marker[1], ["marker"])])
        items.append([session for _, session in sessions])
        times.append([[start + 1000 * e for e in range(len(session))] for start, session in sessions])
    return SessionLog.from_lists(items, times=times)


def read(questions) -> list[tuple]:
    """Put questions and return, for each: user, instant, what was seen with its times, targets."""
    found = []
    for c in questions():
        h, ids = c.histories, c.histories.vocabulary.ids
        for q in range(len(c)):
            a, z = h.event_offsets[q : q + 2]
            seen = tuple(zip(ids[h.items[a:z]].tolist(), h.times[a:z].tolist(), strict=True))
            targets = tuple(sorted(ids[c.targets[c.target_offsets[q] : c.target_offsets[q + 1]]].tolist()))
            found.append((int(c.groups[q]), int(c.asked_at[q]), seen, targets))
    return found


BY_TIME = [
    {"test": "2d", "validation": "1d"},
    {"test": "2d", "validation": "1d", "task": "next-session"},
    {"test": "2d", "history": "session"},
    {"protocol": "rolling", "test": "2d", "step": "6h"},
    {"protocol": "session-events", "test": "2d", "validation": "1d"},
]
LEAVE_ONE_OUT = [{"protocol": "leave-one-session-out"}, {"protocol": "leave-one-item-out"}]


def name(values: dict) -> str:
    return "-".join(map(str, values.values()))


@pytest.mark.parametrize("values", BY_TIME, ids=name)
@pytest.mark.parametrize("hours", [100, 125, 150, 167])
def test_a_marker_after_the_instant_changes_nothing_before_it(values, hours):
    end = datetime.fromtimestamp(int(random_log().times.max() + 1) / 1000, UTC).isoformat()
    values = values | {"until": end}
    instant = hours * HOUR + 500
    clean = split(random_log(), SplitSettings(**values))
    for user in (0, 5):
        planted = split(random_log(marker=(user, instant)), SplitSettings(**values))
        learnt_to = datetime.fromisoformat(clean.facts["validation_from"]).timestamp() * 1000
        if instant >= learnt_to:
            assert "marker" not in planted.train.vocabulary.ids
            assert np.array_equal(clean.train.items, planted.train.items)
            assert clean.train.vocabulary == planted.train.vocabulary
        for questions, others in ((clean.validation, planted.validation), (clean.test, planted.test)):
            before = [[q[1:] for q in read(some) if q[1] < instant] for some in (questions, others)]
            assert before[0] == before[1]
            for _, at, seen, _ in read(others):
                assert "marker" not in [item for item, time in seen if time >= at or at <= instant]


@pytest.mark.parametrize("values", BY_TIME + LEAVE_ONE_OUT, ids=name)
def test_histories_lie_before_the_question(values):
    found = split(random_log(), SplitSettings(**values))
    questions = read(found.test) + read(found.validation)
    assert questions
    assert all(time < at for _, at, seen, _ in questions for _, time in seen)


@pytest.mark.parametrize("values", BY_TIME, ids=name)
def test_news_lie_before_their_questions(values):
    found = split(random_log(), SplitSettings(**values))
    news = [(c.news, c.asked_at.min()) for c in found.test() if c.news is not None]
    assert bool(news) == (values.get("protocol") == "rolling")
    for told, at in news:
        assert told.n_events == 0 or told.times.max() < at


def test_leave_one_session_out_shows_nothing_of_the_asked_session():
    log = random_log()
    for cases in split(log, SplitSettings(protocol="leave-one-session-out")).test():
        for q in range(len(cases)):
            user = int(cases.groups[q])
            own = log.rows(user, user + 1)
            asked = own.times[own.session_of_event == own.n_sessions - 1]
            a, z = cases.histories.event_offsets[q : q + 2]
            seen = cases.histories.times[a:z]
            assert not set(asked.tolist()) & set(seen.tolist())
            assert cases.asked_at[q] == asked[0]


@pytest.mark.parametrize("more", [{}, {"validation_share": 0.5}], ids=["", "validation"])
@pytest.mark.parametrize("protocol", ["leave-one-session-out", "leave-one-item-out"])
def test_what_was_held_back_can_be_told_and_is_all_the_rest(protocol, more):
    log = random_log()
    plain = split(log, SplitSettings(protocol=protocol, **more))
    told = split(log, SplitSettings(protocol=protocol, counted="everything", **more))
    assert read(told.test) == read(plain.test)
    assert all(c.held is None for c in plain.test())
    first, *others = (c.held for c in told.test())
    assert all(held is None for held in others)
    events = Counter(content(first)) + Counter(content(told.train))
    assert events == Counter(content(log))
    assert told.train.n_events == plain.train.n_events


def content(log):
    users = np.repeat(log.users, np.diff(log.event_offsets)).tolist()
    return zip(users, log.vocabulary.ids[log.items].tolist(), log.times.tolist(), strict=True)


def test_only_a_log_with_times_can_say_what_happened_before():
    log = replace(SessionLog.from_lists([[["a"], ["b"]]]), timed=False)
    with pytest.raises(DataError, match="counted = 'everything' needs the times"):
        split(log, SplitSettings(protocol="leave-one-session-out", counted="everything"))
    with pytest.raises(ConfigError, match="does not read counted"):
        SplitSettings.read({"counted": "everything"}, "split")


def test_paper_like_next_items_see_their_own_session_and_strict_ones_do_not():
    log = SessionLog.from_lists([[["a", "b"], ["c", "d", "e"]]])
    strict = read(split(log, SplitSettings(protocol="leave-one-item-out")).test)[0]
    paper = read(split(log, SplitSettings(protocol="leave-one-item-out", form="paper-like")).test)[0]
    assert [item for item, _ in strict[2]] == ["a", "b"]
    assert [item for item, _ in paper[2]] == ["a", "b", "c", "d"]
    assert strict[3] == paper[3] == ("e",)
    assert (strict[1], paper[1]) == (HOUR, HOUR + 2000)


def test_vocabulary_knows_items_of_answers_only_in_the_paper_like_form():
    log = SessionLog.from_lists([[["a", "b"], ["c"]], [["a"], ["b"]]])
    for form, ids in (("strict", ["a", "b"]), ("paper-like", ["a", "b", "c"])):
        found = split(log, SplitSettings(protocol="leave-one-session-out", form=form))
        assert found.train.vocabulary.ids.tolist() == ids


@pytest.mark.parametrize("values", BY_TIME, ids=name)
def test_without_validation_the_test_questions_are_the_same(values):
    one = split(random_log(), SplitSettings(**values))
    other = split(random_log(), SplitSettings(**(values | {"validation": 0})))
    assert read(one.test) == read(other.test)
    assert list(Blocks(other.validation)) == []
    if "validation" in values:
        assert one.train.n_events < other.train.n_events


def test_an_instant_and_a_duration_say_the_same():
    log = random_log()
    end = int(log.times.max()) + 1
    instant = datetime.fromtimestamp((end - 2 * DAY) / 1000, UTC)
    for when in (instant, instant.isoformat(), instant.isoformat().replace("+00:00", "Z")):
        assert read(split(log, SplitSettings(test=when)).test) == read(split(log, SplitSettings(test="2d")).test)


def test_settings_survive_json():
    settings = SplitSettings(protocol="rolling", test="1970-01-05T00:00:00", step="6h", validation="1d")
    assert SplitSettings.model_validate_json(settings.model_dump_json(exclude_unset=True)) == settings
    assert settings.test == "1970-01-05T00:00:00Z"


def test_until_leaves_out_what_is_later():
    log = random_log()
    cut = split(log, SplitSettings(test="1d", until="1d"))
    last = int(log.times.max()) + 1 - DAY
    assert {at < last for _, at, _, _ in read(cut.test)} == {True}
    assert cut.train.times.max() < last - DAY


def test_learning_from_next_to_nothing_is_remarked_upon():
    log = random_log()
    span = int(np.ptp(log.times))
    assert "remark" not in split(log, SplitSettings(test="1d")).facts
    scant = split(log, SplitSettings(test=span * 19 // 20))
    assert 0 < scant.train.n_events < log.n_events / 10
    assert scant.facts["remark"].startswith(f"Only {scant.train.n_events:,} of {log.n_events:,} events are earlier")


def test_at_most_so_many_users_are_asked_and_training_is_the_same():
    log = random_log()
    everybody = split(log, SplitSettings(protocol="leave-one-session-out"))
    some = split(log, SplitSettings(protocol="leave-one-session-out", users=4, seed=3))
    others = split(log, SplitSettings(protocol="leave-one-session-out", users=4, seed=4))
    assert len({q[0] for q in read(some.test)}) == 4
    assert set(read(some.test)) < set(read(everybody.test))
    assert read(some.test) != read(others.test)
    assert np.array_equal(some.train.items, everybody.train.items)


def test_validation_of_a_share_of_the_users_is_the_session_before_the_last():
    log = SessionLog.from_lists([[["a"], ["b"], ["c"], ["d"]]] * 10)
    found = split(log, SplitSettings(protocol="leave-one-session-out", validation_share=0.3))
    assert [q[3] for q in read(found.validation)] == [("c",)] * 3
    assert [q[3] for q in read(found.test)] == [("d",)] * 10
    assert found.train.n_events == 7 * 3 + 3 * 2


def test_shown_and_ignored_items_of_the_asked_session_go_with_the_question():
    log = SessionLog(
        items=np.array([0, 1, 2, 3, 1, 1], np.int32),
        times=np.arange(6) * 1000,
        session_offsets=np.array([0, 1, 6]),
        user_offsets=np.array([0, 2]),
        vocabulary=SessionLog.from_lists([[["a", "b", "c", "d"]]]).vocabulary,
        labels=np.array([1, 0, 1, 0, 1, 0], np.int8),
    )
    (cases,) = split(log, SplitSettings(protocol="leave-one-session-out")).test()
    assert cases.targets.tolist() == [2, 1]
    assert cases.ignored.tolist() == [3]


def test_positions_count_the_events_of_the_open_session():
    log = SessionLog.from_lists([[["a", "b", "c"], ["d", "e", "f"]]])
    (cases,) = split(log, SplitSettings(test=2000)).test()
    assert cases.positions.tolist() == [1, 2]
    (cases,) = split(log, SplitSettings(test=3000, task="next-session")).test()
    assert cases.positions.tolist() == [0]


# -- prepared questions and ready splits --------------------------------------------------------


def prefixes() -> Cases:
    log = SessionLog.from_lists([[["a", "b"]], [["c"]], [["b"]]])
    return Cases(log, log.last_times + 1, np.array([2, 0, 1], np.int32), np.arange(4), np.arange(3))


def test_prepared_questions_are_put_as_they_are():
    log = SessionLog.from_lists([[["a", "b", "c"]]] * 8)
    found = split(log, SplitSettings(protocol="prefixes", validation_share=0.25), prefixes())
    assert [q[3] for q in read(found.test)] == [("c",), ("a",), ("b",)]
    assert [q[3] for q in read(found.validation)] == [("b",), ("c",)] * 2
    assert len(found.train) == 6


def test_ready_logs_are_asked_event_by_event():
    train = SessionLog.from_lists([[["a", "b", "c"]]])
    test = SessionLog.from_lists([[["b", "x", "c"]], [["x", "a"]]])
    found = split_ready(train, test)
    assert [(q[3], [i for i, _ in q[2]]) for q in read(found.test)] == [
        (("x",), ["b"]),
        (("c",), ["b", "x"]),
        (("a",), ["x"]),
    ]
    dropped = split_ready(train, test, SplitSettings(protocol="session-events", unseen="drop"))
    assert [(q[3], [i for i, _ in q[2]]) for q in read(dropped.test)] == [(("c",), ["b"])]


# -- blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("questions", "events"), [(3, 10**6), (4096, 7), (1, 1)])
@pytest.mark.parametrize("values", [{"test": "4d"}, {"protocol": "rolling", "test": "4d", "step": "1d"}], ids=name)
def test_blocks_are_bounded_and_change_nothing(monkeypatch, values, questions, events):
    found = split(random_log(), SplitSettings(**values))
    whole = read(found.test)
    monkeypatch.setattr(tasks, "_QUESTIONS", questions)
    monkeypatch.setattr(tasks, "_EVENTS", events)
    assert read(found.test) == whole
    for cases in found.test():
        assert len(cases) <= questions
        assert len(cases) == 1 or cases.histories.n_events <= events


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"protocol": "temporla"}, "split: protocol: must be 'temporal'"),
        ({"protocol": "leave-one-session-out", "test": "1d"}, "'leave-one-session-out' does not read test; leave it"),
        ({"step": "1h"}, "'temporal' does not read step"),
        ({"protocol": "prefixes", "users": 3}, "'prefixes' does not read users"),
        ({"protocol": "rolling", "step": 0}, "step must be longer than 0"),
        ({"test": "yesterday"}, "must be a duration such as '1d', counted back from the end, or an instant"),
        ({"task": "next-session", "history": "session"}, "history='session' is for the next item"),
        ({"validation_share": 2, "protocol": "prefixes"}, "less than or equal to 1"),
        ({"tset": "1d"}, "Did you mean 'test'"),
    ],
)
def test_wrong_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        SplitSettings.read(values, "split")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"test": "90d"}, DataError, "there is nothing to learn from. Shorten the test"),
        ({"test": "2100-01-01T00:00:00"}, ConfigError, "must follow one another"),
        ({"test": "1d", "validation": "1970-01-09T00:00:00"}, ConfigError, "must follow one another"),
        ({"protocol": "prefixes"}, DataError, "questions that come with a data set"),
    ],
)
def test_splits_that_leave_nothing_are_refused(values, error, message):
    with pytest.raises(error, match=message):
        split(random_log(), SplitSettings(**values))


def test_logs_without_question_events_or_times_are_refused():
    one = SessionLog.from_lists([[["a"]], [["b"]]])
    with pytest.raises(DataError, match="finds no question in this log"):
        split(one, SplitSettings(protocol="leave-one-session-out"))
    with pytest.raises(DataError, match="without events"):
        split(SessionLog.from_lists([]), SplitSettings())
    untimed = SessionLog(one.items, one.times, one.session_offsets, one.user_offsets, one.vocabulary, timed=False)
    with pytest.raises(DataError, match="needs the times of events"):
        split(untimed, SplitSettings())
    with pytest.raises(DataError, match="need the protocol 'prefixes', got 'temporal'"):
        split(one, SplitSettings(), prefixes())


def test_an_event_at_the_instant_is_asked_and_not_learnt_from():
    log = SessionLog.from_lists([[["a", "b"]], [["a", "c"]]])  # events at 0 and 1000 ms
    found = split(log, SplitSettings(test="1970-01-01T00:00:01Z"))
    assert [q[3] for q in read(found.test)] == [("b",), ("c",)]
    assert found.train.times.tolist() == [0, 0]
