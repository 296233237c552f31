"""`describe` against slow obvious loops, and logs at the edge: empty, one item, order only, negative times."""

import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextsession import SessionLog, Vocabulary
from nextsession.data import describe as module
from nextsession.data.describe import AGES, QUANTILES, describe
from nextsession.data.log import offsets_of
from nextsession.errors import ConfigError

HOUR, DAY = 3_600_000, 86_400_000


def random_log(seed: int, *, users=40, items=25, days=9, labels=False) -> SessionLog:
    rng = np.random.default_rng(seed)
    rows, times = [], []
    for _ in range(users):
        starts = np.sort(rng.integers(0, days * DAY, rng.integers(1, 5))) + 1_600_000_000_000
        lengths = rng.geometric(0.4, len(starts))
        rows.append([(rng.zipf(1.5, n) % items).tolist() for n in lengths])
        times.append([(s + np.arange(n) * 60_000).tolist() for s, n in zip(starts, lengths, strict=True)])
    log = SessionLog.from_lists(rows, times=times, vocabulary=Vocabulary(np.arange(items + 3)))
    if labels:
        log = replace(log, labels=(rng.random(log.n_events) < 0.3).astype(np.int8))
    return log


def nested(log: SessionLog) -> list[list[list[tuple[int, int]]]]:
    pairs = list(zip(log.items.tolist(), log.times.tolist(), strict=True))
    return [
        [pairs[log.session_offsets[s] : log.session_offsets[s + 1]] for s in range(a, b)]
        for a, b in zip(log.user_offsets[:-1], log.user_offsets[1:], strict=True)
    ]


lists = st.lists(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), max_size=4), max_size=5)


@settings(deadline=None)
@given(lists)
def test_repeats_agree_with_loops(rows):
    log = SessionLog.from_lists(rows, vocabulary=Vocabulary(np.arange(5)))
    before = session = history = n = 0
    for user in rows:
        known = set()
        for one in user:
            here = set()
            for e, item in enumerate(one):
                n += 1
                before += e > 0 and one[e - 1] == item
                session += item in here
                history += item in known
                here.add(item)
                known.add(item)
    found = describe(log).repeats
    assert [found.before, found.session, found.history] == [c / max(1, n) for c in (before, session, history)]


@pytest.mark.parametrize("block", [7, 1 << 22])
@pytest.mark.parametrize("labels", [False, True])
def test_time_agrees_with_loops(monkeypatch, block, labels):
    monkeypatch.setattr(module, "_BLOCK", block)
    log = random_log(3, labels=labels)
    found = describe(log)
    events = [(i, t) for user in nested(log) for s in user for i, t in s]
    first = {}
    for i, t in events:
        first[i] = min(t, first.get(i, t))
    line = found.timeline
    assert line.width == 6 * 30 * 60_000 * 4
    assert sum(line.events) == len(events)
    assert sum(line.wanted) == int(np.sum(log.labels))
    for start, count, new in zip(line.starts, line.events, line.new_items, strict=True):
        inside = [(i, t) for i, t in events if start <= t < start + line.width]
        assert count == len(inside)
        if inside:
            assert new == sum(first[i] >= start for i, _ in inside) / count
        else:
            assert math.isnan(new)
    assert line.hours == tuple(sum(t // HOUR % 24 == h for _, t in events) for h in range(24))
    middle = sorted(t for _, t in events)[(len(events) - 1) // 2]
    late = [(i, t) for i, t in events if t >= middle]
    assert found.newness.unseen == sum(first[i] >= middle for i, _ in late) / len(late)
    for age, share in zip(AGES, found.newness.younger_than, strict=True):
        assert share == sum(t - first[i] < age for i, t in late) / len(late)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=150))
def test_popularity_agrees_with_its_definition(counts):
    rows = [[[i] * n for i, n in enumerate(counts)]]
    found = describe(SessionLog.from_lists(rows)).popularity
    differences = sum(abs(a - b) for a in counts for b in counts) / len(counts) ** 2
    assert found.gini == pytest.approx(differences / (2 * sum(counts) / len(counts)))
    ranked = sorted(counts, reverse=True)
    assert found.top_share[0] == sum(ranked[: math.ceil(len(counts) / 100)]) / sum(counts)
    assert found.top_share[1] == sum(ranked[: math.ceil(len(counts) / 10)]) / sum(counts)
    assert found.events == tuple(ranked[r - 1] for r in found.ranks)
    assert (found.ranks[0], found.ranks[-1]) == (1, len(counts))


@given(st.lists(st.integers(0, 4_102_444_800_000), min_size=1, max_size=30), st.integers(1, 9))
@settings(max_examples=30)
def test_the_median_agrees_with_sorting(times, copies):
    values = np.array(times * copies)
    assert module._median(values) == np.sort(values)[(len(values) - 1) // 2]


def test_lengths_and_returns_by_hand():
    minutes = 60_000
    log = SessionLog.from_lists(
        [[["a", "b", "c"], ["a"]], [["a"]]],
        times=[[[0, 2 * minutes, 5 * minutes], [3 * HOUR]], [[DAY]]],
    )
    d = describe(log)
    assert (d.users, d.sessions, d.events, d.items, d.items_seen) == (2, 3, 5, 3, 3)
    assert (d.first, d.last) == (0, DAY)
    assert d.session_events.mean == pytest.approx(5 / 3)
    assert d.session_events.quantiles == (1, 1, 1, 3, 3, 3, 3)
    assert len(QUANTILES) == len(d.session_events.quantiles)
    assert sum(d.session_events.counts) == 3
    assert d.session_minutes.quantiles[-1] == 5
    assert d.return_hours.quantiles == (3,) * 7
    assert d.one_event_sessions == pytest.approx(2 / 3)
    assert d.one_session_users == 0.5
    assert d.labels.sessions_without == 0


def test_labels_and_actions():
    log = SessionLog.from_lists([[["a", "b"], ["c"]]])
    log = replace(
        log,
        labels=np.array([1, 0, 0], np.int8),
        actions=np.array([1, 1, 0], np.int16),
        action_names=("click", "buy", "like"),
    )
    d = describe(log)
    assert (d.labels.wanted, d.labels.ignored, d.labels.sessions_without) == (1, 2, 0.5)
    assert d.actions == {"click": 1, "buy": 2, "like": 0}
    assert "1 wanted (33.3%), 2 shown and ignored; nothing was wanted in 50.0% of the sessions" in d.text()
    assert "actions     click 1 (33.3%), buy 2 (66.7%), like 0 (0.0%)" in d.text()


def empty() -> SessionLog:
    none = np.zeros(0, np.int64)
    return SessionLog(none.astype(np.int32), none, offsets_of([]), offsets_of([]), Vocabulary([]))


EDGES = {
    "empty": empty(),
    "users without events": SessionLog.from_lists([[], []], vocabulary=Vocabulary(["a"])),
    "one event": SessionLog.from_lists([[["a"]]]),
    "one item": SessionLog.from_lists([[["a", "a"], ["a"]], [["a"]]]),
    "order only": replace(random_log(1), timed=False),
    "with labels": random_log(2, labels=True),
    "before 1970": SessionLog.from_lists([[["a", "b"]]], times=[[[-5 * DAY, -DAY]]]),
    "ages apart": SessionLog.from_lists([[["a", "b"]]], times=[[[0, 9_000_000_000_000]]]),
    "nothing wanted": replace(SessionLog.from_lists([[["a"]]]), labels=np.broadcast_to(np.int8(0), 1)),
}


@pytest.mark.parametrize("name", EDGES)
def test_logs_at_the_edge_are_described_and_drawn(name, tmp_path):
    d = describe(EDGES[name])
    assert all(len(line) <= 110 for line in d.text().splitlines())
    plain = json.loads(json.dumps(d.to_dict(), allow_nan=False))
    assert plain["events"] == EDGES[name].n_events
    assert (d.timeline is None) == (not EDGES[name].timed or EDGES[name].n_events == 0)
    assert d.plots(tmp_path / "x/a.png").stat().st_size > 5000


def test_pictures_come_as_vectors_too(tmp_path):
    d = describe(EDGES["with labels"])
    assert ElementTree.parse(d.plots(tmp_path / "a.svg")).getroot().tag.endswith("svg")
    assert d.plots(tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_order_only_logs_say_so():
    text = describe(EDGES["order only"]).text()
    assert "only the order of the events is known" in text
    assert "minutes of a session" not in text


def test_pictures_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"written as .png, .svg or .pdf, got 'a.gif'"):
        describe(EDGES["one event"]).plots(tmp_path / "a.gif")


def test_the_same_log_gives_the_same_picture(tmp_path):
    d = describe(EDGES["with labels"])
    assert d.plots(tmp_path / "a.svg").read_bytes() == d.plots(tmp_path / "b.svg").read_bytes()
