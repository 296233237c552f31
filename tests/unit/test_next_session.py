"""Next-session prediction: what is asked after a session, what answers it, and what a state may depend on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nextsession.answering import Facts
from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Vocabulary
from nextsession.models.sessionrec import SessionRec
from nextsession.nn.batches import Rows
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.jagged import Batch
from nextsession.nn.losses import SampledSoftmax
from nextsession.nn.negatives import ItemStatistics, Uniform
from nextsession.nn.networks import Head, Input, NextItem
from nextsession.nn.next_session import NextSession, cut_last_sessions, following
from nextsession.slices import whole_sessions
from nextsession.testing.strategies import logs

V, DIM = 9, 8
HOUR = 3_600_000
NAMES = Vocabulary(np.arange(V))
READERS = [
    {"across": across, "tokens": tokens}
    for across in ("hstu", "transformer", "gru")
    for tokens in ("sessions", "items", "both")
]
named = pytest.mark.parametrize("reader", READERS, ids=lambda x: " ".join(x.values()))


def a_log(seed: int = 208, users: int = 5, labels: bool = True, sessions: int = 4) -> SessionLog:
    """Return users of up to four sessions; the second has none, and the third session of the first was ignored."""
    rng = np.random.default_rng(seed)
    per_user = rng.integers(1, sessions + 1, users)
    per_user[0], per_user[1] = sessions, 0
    lengths = rng.integers(1, 6, per_user.sum())
    n = lengths.sum()
    starts = np.repeat(np.arange(len(lengths)) * 5 * HOUR, lengths)
    return SessionLog(
        items=rng.integers(0, V, n).astype(np.int32),
        times=starts + 60_000 * np.arange(n),
        session_offsets=offsets_of(lengths),
        user_offsets=offsets_of(per_user),
        vocabulary=NAMES,
        labels=(rng.random(n) < 0.6).astype(np.int8) if labels else None,  # type: ignore[arg-type]
        actions=rng.integers(0, 2, n).astype(np.int16),
        action_names=("view", "buy"),
    )


def batch_of(log: SessionLog, asked_at: Any = None) -> Batch:
    at = log.last_times + HOUR if asked_at is None else np.broadcast_to(asked_at, len(log))
    return Batch.of_log(log, np.array(at, np.int64), None if log.actions is None else log.actions.astype(np.int64))


def network_of(**settings: Any) -> NextSession:
    model = SessionRec(**{"dim": DIM, "layers": 2, "dropout": 0.0, "max_length": 30, "open": "never", **settings})
    model.timed_ = True
    torch.manual_seed(5)
    network = model._network(Facts(V, ("view", "buy")))
    assert isinstance(network, NextSession)
    for name, weight in network.named_parameters():
        if weight.dim() and "norm" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    return network.eval()


def states(network: NextSession, batch: Batch) -> Tensor:
    """Return the state after each session of a batch."""
    with torch.no_grad():
        rows, ends = network._sequence(batch, None)
        return network.across(rows)[ends]


def user(log: SessionLog, r: int) -> SessionLog:
    return log.rows(r, r + 1)


# -- what follows -------------------------------------------------------------------------------


@dataclass
class Asked:
    """A question that a session of a batch puts."""

    session: int
    wanted: list[int]
    shown: list[int]


def following_by_loops(log: SessionLog) -> list[Asked]:
    """Ask every session for the first later one of its user in which something was wanted, from the definition."""
    found = []
    for u in range(len(log)):
        sessions = range(log.user_offsets[u], log.user_offsets[u + 1])
        for s in sessions:
            for later in sessions:
                events = range(log.session_offsets[later], log.session_offsets[later + 1])
                wanted = {int(log.items[e]) for e in events if log.labels[e] == 1}
                if later > s and wanted:
                    shown = {int(log.items[e]) for e in events} - wanted
                    found.append(Asked(s, sorted(wanted), sorted(shown)))
                    break
    return found


def by_query(n: int, items: Tensor, of: Tensor) -> list[list[int]]:
    assert (of[1:] >= of[:-1]).all(), "queries must never fall"
    found: list[list[int]] = [[] for _ in range(n)]
    for item, query in zip(items.tolist(), of.tolist(), strict=True):
        found[query].append(item)
    return [sorted(x) for x in found]


@given(log=logs(users=4, sessions=4, events=5))
def test_what_follows_is_what_loops_find(log: SessionLog) -> None:
    found, expected = following(batch_of(log)), following_by_loops(log)
    assert found.session.tolist() == [x.session for x in expected]
    assert by_query(len(expected), found.items, found.of_query) == [x.wanted for x in expected]
    assert by_query(len(expected), found.shown, found.of) == [x.shown for x in expected]


def test_what_follows_by_hand() -> None:
    """Session 1 was ignored as a whole; of session 2 item 5 was wanted twice and ignored once, and 7 ignored twice."""
    log = SessionLog(
        items=np.array([1, 2, 3, 5, 7, 5, 7, 5, 4], np.int32),
        times=np.arange(9) * HOUR,
        session_offsets=np.array([0, 1, 3, 8, 9]),
        user_offsets=np.array([0, 0, 4, 4]),
        vocabulary=NAMES,
        labels=np.array([1, 0, 0, 1, 0, 0, 0, 1, 0], np.int8),
    )
    found = following(batch_of(log))
    assert found.session.tolist() == [0, 1]  # nothing was wanted after session 2
    assert (found.items.tolist(), found.of_query.tolist()) == ([5, 5], [0, 1])
    assert (found.shown.tolist(), found.of.tolist()) == ([7, 7], [0, 1])


# -- open sessions ------------------------------------------------------------------------------


def cuts_by_loops(log: SessionLog, r: int) -> list[tuple[int, int]]:
    """Return (events of the row that stay, event that answers), for each way to cut its last session."""
    if log.user_offsets[r] == log.user_offsets[r + 1]:
        return []
    begin, stop = log.session_offsets[log.user_offsets[r + 1] - 1], log.event_offsets[r + 1]
    found = []
    for end in range(begin + 1, stop):
        wanted = [e for e in range(end, stop) if log.labels[e] == 1]
        if wanted:
            found.append((int(end - log.event_offsets[r]), wanted[0]))
    return found


@given(log=logs(users=4, sessions=3, events=5), seed=st.integers(0, 9))
def test_sessions_are_cut_as_loops_would(log: SessionLog, seed: int) -> None:
    torch.manual_seed(seed)
    batch = batch_of(log)
    cut, answers = cut_last_sessions(batch)
    ways = [cuts_by_loops(log, r) for r in range(len(log))]
    assert answers.of_row.tolist() == [bool(x) for x in ways]
    left = cut.events.lengths.tolist()
    at, given = log.last_times + HOUR, iter(answers.items.tolist())
    keep = np.zeros(log.n_events, bool)
    for r, possible in enumerate(ways):
        begin, end = log.event_offsets[r], log.event_offsets[r + 1]
        chosen = dict(possible).get(left[r]) if possible else None
        assert (chosen is not None) == bool(possible)
        keep[begin : begin + left[r]] = True
        if chosen is None:
            assert left[r] == end - begin
        else:
            assert next(given) == log.items[chosen]
            at[r] = log.times[chosen]
    expect_same(cut, batch_of(log.events(keep, keep_users=True), at))


def expect_same(one: Batch, other: Batch) -> None:
    """Compare all but the room for longer rows."""
    for name in ("events", "sessions"):
        mine, theirs = getattr(one, name), getattr(other, name)
        for column in ("values", "offsets", "times", "asked_at"):
            assert getattr(mine, column).tolist() == getattr(theirs, column).tolist(), (name, column)
    if other.labels is None:  # all that is left was wanted
        assert one.labels is None or one.labels.all()
    else:
        assert one.labels is not None
        assert one.labels.tolist() == other.labels.tolist()


def test_every_cut_is_as_likely_as_the_others() -> None:
    log = replace(
        SessionLog.from_lists([[[1, 2], [3, 4, 5, 6, 7, 8]]]), labels=np.array([1, 1, 1, 0, 1, 0, 1, 0], np.int8)
    )
    ways = [left for left, _ in cuts_by_loops(log, 0)]
    assert ways == [3, 4, 5, 6]
    many = log.take(np.zeros(6000, np.int64))
    torch.manual_seed(0)
    left = cut_last_sessions(batch_of(many))[0].events.lengths.numpy()
    shares = np.bincount(left, minlength=max(ways) + 1)[ways] / len(many)
    np.testing.assert_allclose(shares, 1 / len(ways), atol=0.03)


@pytest.mark.parametrize(
    ("settings", "minutes", "is_open"),
    [
        ({"open": "gap", "gap": "30m"}, 30, True),
        ({"open": "gap", "gap": "30m"}, 31, False),
        ({"open": "gap", "gap": "2h"}, 31, True),
        ({"open": "always"}, 5000, True),
        ({"open": "never"}, 0, False),
    ],
)
def test_when_a_session_is_open(settings: dict[str, Any], minutes: int, is_open: bool) -> None:
    """The vector of an open session is marked, that of the other rows is not, and empty rows have none."""
    network, log = network_of(across="gru", **settings), a_log()
    at = log.last_times + 10_000 * HOUR
    at[2:4] = log.last_times[2:4] + 60_000 * minutes
    batch = batch_of(log, at)
    opened = network._are_open(batch)
    found, _ = network._sequence(batch, opened)
    plain, _ = network._sequence(batch, None)
    last = {int(batch.sessions.offsets[r + 1]) - 1: r for r in range(len(log)) if r != 1}
    for s in range(log.n_sessions):
        marked = is_open and s in last and (last[s] in (2, 3) or settings["open"] == "always")
        extra = network.opened if marked else torch.zeros(DIM)
        assert extra is not None
        torch.testing.assert_close(found.values[s], plain.values[s] + extra)


def test_nothing_is_learnt_of_open_sessions_that_never_are() -> None:
    log = a_log()
    never, always = network_of(), network_of(open="always")
    assert never.opened is None
    cut = sum(bool(cuts_by_loops(log, r)) for r in range(len(log)))
    assert cut >= 2
    assert len(never.examples(batch_of(log)).queries) == len(following_by_loops(log))
    assert len(always.examples(batch_of(log)).queries) == len(following_by_loops(log)) + cut


# -- what is learnt -----------------------------------------------------------------------------


@named
@pytest.mark.parametrize("labels", [True, False])
def test_queries_of_training_are_those_of_answering(reader: dict[str, Any], labels: bool) -> None:
    """Each is the query of the sessions so far, asked as the next session begins."""
    network, log = network_of(**reader), a_log(labels=labels)
    examples, expected = network.examples(batch_of(log)), following_by_loops(log)
    assert examples.users is not None
    assert len(expected) > 5
    for query, row, asked in zip(examples.queries, examples.users.tolist(), expected, strict=True):
        assert log.user_of_session[asked.session] == row
        so_far = np.arange(log.n_sessions) <= asked.session
        history = user(log.sessions(so_far, keep_users=True), row)
        alone = network(batch_of(history, log.session_starts[asked.session + 1]))
        torch.testing.assert_close(alone[0], query, rtol=1e-4, atol=1e-5)


@named
def test_what_is_learnt_of_open_sessions_is_what_is_asked_within_them(reader: dict[str, Any]) -> None:
    network, log = network_of(**reader, open="gap", gap="1h"), a_log()
    torch.manual_seed(1)
    cut, answers = cut_last_sessions(batch_of(log))
    torch.manual_seed(1)
    examples = network.examples(batch_of(log))
    expected = following_by_loops(log)
    assert examples.users is not None
    assert examples.of_query is not None
    wanted = by_query(len(examples.queries), examples.positives, examples.of_query)
    given = iter(answers.items.tolist())
    place = 0
    for r in range(len(log)):
        place += sum(log.user_of_session[x.session] == r for x in expected)
        if not answers.of_row[r]:
            continue
        assert wanted[place] == [next(given)]
        assert examples.users[place] == r
        history = user(log, r)
        left = int(cut.events.lengths[r])
        history = history.events(np.arange(history.n_events) < left)
        assert cut.events.asked_at is not None
        alone = network(batch_of(history, int(cut.events.asked_at[r])))
        torch.testing.assert_close(alone[0], examples.queries[place], rtol=1e-4, atol=1e-5)
        place += 1
    assert place == len(examples.queries)


@pytest.mark.parametrize("is_open", ["never", "always"])
@given(log=logs(users=4, sessions=4, events=5, vocabulary=NAMES))
def test_queries_stand_by_row_and_their_answers_by_query(is_open: str, log: SessionLog) -> None:
    examples = network_of(open=is_open, across="gru", layers=1).examples(batch_of(log))
    assert examples.users is not None
    assert examples.of_query is not None
    for places, n in ((examples.users, len(log)), (examples.of_query, len(examples.queries))):
        assert (places[1:] >= places[:-1]).all()
        assert not len(places) or 0 <= int(places[0]) <= int(places[-1]) < n
    assert set(examples.of_query.tolist()) == set(range(len(examples.queries)))
    assert examples.shown_of is not None
    assert (examples.shown_of[1:] >= examples.shown_of[:-1]).all()


def test_negatives_of_rows_meet_the_queries_of_those_rows() -> None:
    """The last row teaches nothing of an open session, but rows before it do."""
    log = SessionLog.from_lists([[[1, 2], [3, 4, 5]], [[1, 2], [3]]], vocabulary=NAMES)
    network = network_of(open="always", across="gru")
    torch.manual_seed(0)
    examples = network.examples(batch_of(log))
    assert examples.users is not None
    assert examples.users.tolist() == [0, 0, 1]
    statistics = ItemStatistics(torch.ones(V))
    loss = SampledSoftmax(negatives=Uniform(n=2000, per="row", distinct=True))(examples, network.head, statistics)
    scores = examples.queries @ network.head.table()[0].T
    wanted = by_query(3, examples.positives, examples.of_query)  # type: ignore[arg-type]
    losses = [
        -torch.log_softmax(scores[q][[i for i in range(V) if i == item or i not in items]], 0)[
            [i for i in range(V) if i == item or i not in items].index(item)
        ]
        for q, items in enumerate(wanted)
        for item in items
    ]
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_rows_weigh_as_told() -> None:
    log = a_log()
    batch = replace(batch_of(log), weights=torch.arange(5.0))
    examples = network_of(open="always").examples(batch)
    assert examples.weights is not None
    assert examples.users is not None
    assert examples.weights.tolist() == examples.users.tolist()


# -- no look-ahead ------------------------------------------------------------------------------


def _other_items(log: SessionLog, later: np.ndarray) -> SessionLog:
    return replace(log, items=np.where(later, (log.items + 1) % V, log.items).astype(np.int32))


def _other_labels(log: SessionLog, later: np.ndarray) -> SessionLog:
    return replace(log, labels=np.where(later, 1 - log.labels, log.labels).astype(np.int8))


def _other_kinds(log: SessionLog, later: np.ndarray) -> SessionLog:
    assert log.actions is not None
    return replace(log, actions=np.where(later, 1 - log.actions, log.actions).astype(np.int16))


def _other_times(log: SessionLog, later: np.ndarray) -> SessionLog:
    starts = np.isin(np.arange(log.n_events), log.session_offsets)
    return replace(log, times=log.times + 1000 * (later & ~starts))


@named
@pytest.mark.parametrize("change", [_other_items, _other_labels, _other_kinds, _other_times])
@pytest.mark.parametrize("within", ["mean", "gru", "transformer", "separate"])
def test_no_state_sees_what_comes_later(
    reader: dict[str, Any], change: Callable[[SessionLog, np.ndarray], SessionLog], within: str
) -> None:
    """Whatever happens in session i + 1 (but for when it begins), sessions up to i are as they were."""
    network, log = network_of(**reader, within=within), user(a_log(), 0)
    before = states(network, batch_of(log, 10**12))
    for i in range(log.n_sessions - 1):
        after = states(network, batch_of(change(log, log.session_of_event == i + 1), 10**12))
        torch.testing.assert_close(after[: i + 1], before[: i + 1], rtol=0, atol=0)
        if change is _other_items:
            assert (after[i + 1 :] != before[i + 1 :]).any(1).all()


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_labels_and_kinds_are_read_where_they_stand(place: int) -> None:
    network, log = network_of(across="gru", within="mean"), user(a_log(), 0)
    before = states(network, batch_of(log))
    for change in (_other_labels, _other_kinds):
        after = states(network, batch_of(change(log, log.session_of_event == place)))
        assert (after != before).any(1).tolist() == [s >= place for s in range(4)]


def test_a_state_knows_when_the_next_session_begins_and_nothing_later() -> None:
    network, log = network_of(), user(a_log(), 0)
    before = states(network, batch_of(log, 10**12))
    for place in range(1, 4):
        moved = replace(log, times=log.times + 3000 * HOUR * (log.session_of_event >= place))
        same = (states(network, batch_of(moved, 10**12 + 3000 * HOUR)) == before).all(1)
        assert same.tolist() == [s + 1 < place for s in range(4)]
    blind = network_of(time="none")
    moved = replace(log, times=log.times * 7)
    torch.testing.assert_close(states(blind, batch_of(moved)), states(blind, batch_of(log)), rtol=0, atol=0)


# -- company ------------------------------------------------------------------------------------


@named
def test_a_row_alone_is_the_row_in_company(reader: dict[str, Any]) -> None:
    network, log = network_of(**reader, open="gap", gap="1h"), a_log()
    at = log.last_times + HOUR * np.array([0, 0, 3, 0, 3])
    together = network(batch_of(log, at))
    for r in (0, 2, 3, 4):
        torch.testing.assert_close(network(batch_of(user(log, r), at[r]))[0], together[r], rtol=1e-4, atol=1e-5)
    closed = network_of(**reader)
    learnt = closed.examples(batch_of(log))
    assert learnt.users is not None
    for r in range(len(log)):
        mine = learnt.queries[learnt.users == r]
        torch.testing.assert_close(closed.examples(batch_of(user(log, r))).queries, mine, rtol=1e-4, atol=1e-5)


@named
def test_room_for_longer_rows_changes_nothing(reader: dict[str, Any]) -> None:
    network, batch = network_of(**reader), batch_of(a_log())
    roomy = replace(
        batch,
        events=replace(batch.events, longest=batch.events.longest + 7),
        sessions=replace(batch.sessions, longest=batch.sessions.longest + 3),
    )
    torch.testing.assert_close(states(network, roomy), states(network, batch), rtol=1e-4, atol=1e-6)
    some = [0, 2, 3, 4]
    torch.testing.assert_close(network(roomy)[some], network(batch)[some], rtol=1e-4, atol=1e-6)


@named
def test_rows_without_events(reader: dict[str, Any]) -> None:
    nothing = SessionLog.from_lists([[], []], vocabulary=NAMES)
    for is_open in ("never", "gap", "always"):
        network = network_of(**reader, open=is_open)
        assert network(batch_of(nothing, 5)).shape == (2, DIM)
        assert len(network.examples(batch_of(nothing, 5))) == 0


# -- layouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", ["sessions", "items", "both"])
def test_what_is_read_token_by_token(tokens: str) -> None:
    network, log = network_of(tokens=tokens), a_log()
    batch = batch_of(log)
    with torch.no_grad():
        rows, ends = network._sequence(batch, None)
        vectors = network.inputs(batch)
    assert network.places is not None
    assert rows.times is not None
    values, times, last, offsets = [], [], [], [0]
    for u in range(len(log)):
        for s in range(log.user_offsets[u], log.user_offsets[u + 1]):
            events = range(log.session_offsets[s], log.session_offsets[s + 1])
            if tokens != "sessions":
                values += [vectors[e] for e in events]
                times += [int(log.times[e]) for e in events]
            if tokens != "items":
                values.append(vectors[events.start : events.stop].mean(0))
                times.append(int(log.times[events.start if tokens == "sessions" else events.stop - 1]))
            last.append(len(values) - 1)
        offsets.append(len(values))
    placed = [v + network.places[i] for a, z in pairwise(offsets) for i, v in enumerate(values[a:z])]
    torch.testing.assert_close(rows.values, torch.stack(placed))
    assert (rows.offsets.tolist(), ends.tolist(), rows.times.tolist()) == (offsets, last, times)
    assert rows.longest >= max(np.diff(offsets))


@pytest.mark.parametrize("across", ["hstu", "transformer", "gru"])
@pytest.mark.parametrize("within", ["mean", "max"])
def test_sessions_of_one_wanted_event_are_an_item_level_model(across: str, within: str) -> None:
    """MODELS 14.11 (b): the same backbone, identical scores."""
    rng = np.random.default_rng(2)
    log = SessionLog.from_lists([[[int(i)] for i in rng.integers(0, V, n)] for n in (7, 0, 1, 3)], vocabulary=NAMES)
    model = SessionRec(dim=DIM, layers=2, across=across, within=within, reads_ignored=False, max_length=9, dropout=0)
    model.timed_ = True
    torch.manual_seed(0)
    sessions = model._network(Facts(V))
    assert isinstance(sessions, NextSession)
    items = ItemEmbedding(V, DIM)
    inputs = Input(items, positions=0 if sessions.places is None else 9)
    plain = NextItem(inputs, sessions.across, Head(items))
    with torch.no_grad():
        items.weight.copy_(sessions.inputs.items.weight)
        if inputs.positions is not None and sessions.places is not None:
            inputs.positions.copy_(sessions.places)
    batch = batch_of(log, 10**12)
    scores = [(net.eval()(batch) @ net.head.table()[0].T)[[0, 2, 3]] for net in (sessions, plain)]
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=0)
    sessions.open_within = 0
    mine, theirs = sessions.examples(batch), plain.examples(batch)
    torch.testing.assert_close(mine.queries, theirs.queries, rtol=1e-5, atol=1e-6)
    assert mine.positives.tolist() == theirs.positives.tolist()


# -- what is read of long histories -------------------------------------------------------------


@given(log=logs(users=4, sessions=5, events=6), wanted=st.integers(1, 5), events=st.integers(1, 8))
def test_whole_sessions_are_kept_as_loops_would(log: SessionLog, wanted: int, events: int) -> None:
    found = whole_sessions(log, wanted=wanted, events=events)
    assert found.stops.tolist() == log.event_offsets[1:].tolist()
    for r in range(len(log)):
        stop = int(log.event_offsets[r + 1])
        fits = [
            s
            for s in range(log.user_offsets[r], log.user_offsets[r + 1])
            if log.labels[log.session_offsets[s] : stop].sum() <= wanted and stop - log.session_offsets[s] <= events
        ]
        start = stop
        if fits:
            start = int(log.session_offsets[fits[0]])
        elif log.user_offsets[r] < log.user_offsets[r + 1]:
            newest = int(log.session_offsets[log.user_offsets[r + 1] - 1])
            start = min(e for e in range(newest, stop + 1) if log.labels[e:stop].sum() <= wanted and stop - e <= events)
        assert found.starts[r] == start


def test_rows_of_training_are_whole_sessions() -> None:
    log = a_log()
    kept = whole_sessions(log, wanted=4, events=20)
    batch = Rows(log, kept).batch(np.array([0]))
    assert batch.sessions.values.tolist() == [0, 1, 4]  # of the last three of its sessions
    assert batch.events.values.tolist() == log.items[kept.starts[0] : kept.stops[0]].tolist()
