"""Moments: what is known at the instant of a question, against loops over all events; and nothing from then on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nextsession.config import Runtime
from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ConfigError
from nextsession.models.sessionrec import SessionRec
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.jagged import Batch
from nextsession.nn.known import History, known
from nextsession.nn.moments import (
    AskedBatch,
    MomentNetwork,
    answered,
    grown,
    moment_loss,
    rank_loss,
)
from nextsession.nn.networks import Head, Network
from nextsession.testing.strategies import MINUTE, START, logs

V, D = 6, 4
NAMES = Vocabulary(np.arange(V))
HOUR = 60 * MINUTE
WINDOWS = np.array([30 * MINUTE, 2 * HOUR, 24 * HOUR])
INSTANTS = st.integers(START - HOUR, START + 60 * HOUR)


def features_slowly(log: SessionLog, instant: int) -> list[list[float]]:
    """Return what was known of every item at an instant, from the definition."""
    events = list(zip(log.times.tolist(), log.items.tolist(), log.labels.tolist(), strict=True))
    is_shown = any(label == 0 for _, _, label in events)
    found = []
    for v in range(log.n_items):
        row = []
        for only_wanted in (True, False) if is_shown else (True,):
            mine = [t for t, i, label in events if i == v and (label == 1 or not only_wanted)]
            row += [math.log1p(sum(instant - int(w) <= t < instant for t in mine)) for w in WINDOWS]
            row.append(math.log1p(sum(t < instant for t in mine)))
        first = min((t for t, i, label in events if i == v and label == 1 and t < instant), default=instant)
        row += [float(first < instant), math.log1p((instant - first) / HOUR)]
        for w in WINDOWS:
            volume = sum(label == 1 and instant - int(w) <= t < instant for t, _, label in events)
            row.append(math.log1p(volume) / 4)
        found.append([x / 3 for x in row])
    return found


@given(log=logs(vocabulary=NAMES), instant=INSTANTS)
def test_what_was_known_of_items_is_what_loops_find(log: SessionLog, instant: int) -> None:
    history = History.of(log)
    found = history.features(instant, WINDOWS)
    assert found.shape == (V, history.n_features(len(WINDOWS)))
    np.testing.assert_allclose(found, features_slowly(log, instant), rtol=1e-5, atol=1e-6)


@given(log=logs(vocabulary=NAMES), instant=INSTANTS, marks=st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_nothing_at_or_after_the_instant_is_known(log: SessionLog, instant: int, marks: list[int]) -> None:
    """Markers at the instant and after it, of an item that nobody had touched and of all others, change nothing."""
    times = np.array([instant, *(instant + MINUTE * m for m in marks)])
    later = SessionLog(
        items=(np.arange(len(times)) % V).astype(np.int32), times=np.sort(times), user_offsets=np.array([0, 1]),
        session_offsets=np.array([0, len(times)]), vocabulary=NAMES, labels=(np.arange(len(times)) % 2).astype(np.int8),
    )  # fmt: skip
    before = History.of(log)
    if before.shown is None:
        later = replace(later, labels=np.ones(len(times), np.int8))
    now = before.features(instant, WINDOWS)
    np.testing.assert_array_equal(before.joined(later).features(instant, WINDOWS), now)
    assert (before.joined(later).features(instant + 1, WINDOWS) != now).any()


@given(log=logs(vocabulary=NAMES), more=logs(vocabulary=NAMES), instant=INSTANTS)
def test_histories_are_joined_and_kept_as_if_they_had_been_one(log: SessionLog, more: SessionLog, instant: int) -> None:
    history = History.of(log)
    again = History.restored(history.arrays(), V)
    np.testing.assert_array_equal(again.features(instant, WINDOWS), history.features(instant, WINDOWS))
    if history.shown is None and not np.all(more.labels == 1):
        return  # nothing is known of what was shown, then or later
    one = SessionLog(
        items=np.concatenate([log.items, more.items]),
        times=np.concatenate([log.times, more.times]),
        session_offsets=offsets_of(np.concatenate([np.diff(log.session_offsets), np.diff(more.session_offsets)])),
        user_offsets=offsets_of(np.concatenate([np.diff(log.user_offsets), np.diff(more.user_offsets)])),
        vocabulary=NAMES,
        labels=np.concatenate([log.labels, more.labels]),
    )
    np.testing.assert_array_equal(
        history.joined(more).features(instant, WINDOWS), History.of(one).features(instant, WINDOWS)
    )


# -- questions ----------------------------------------------------------------------------------


@given(log=logs(vocabulary=NAMES, empty_users=True), data=st.data())
def test_what_is_known_when_questions_are_asked(log: SessionLog, data: st.DataObject) -> None:
    at = np.array(data.draw(st.lists(INSTANTS, min_size=len(log), max_size=len(log))), np.int64)
    history = History.of(log)
    found = known(log, at, history, WINDOWS, repeat=True)
    asked = [q for first, stop in found.runs for q in range(first, stop)]
    assert asked == list(range(len(log)))
    assert found.moment_of(torch.arange(len(log))).tolist() == [
        g for g, (first, stop) in enumerate(found.runs) for _ in range(first, stop)
    ]
    for g, (first, stop) in enumerate(found.runs):
        assert found.items is not None
        for q in range(first, stop):
            np.testing.assert_array_equal(found.items[g].numpy(), history.features(int(at[q]), WINDOWS))
    pairs = {(u, int(i)) for u in range(len(log)) for i in log.rows(u, u + 1).items}
    assert set(zip(found.rows.tolist(), found.had.tolist(), strict=True)) == pairs
    nothing = known(log, at, None, WINDOWS, repeat=False)
    assert nothing.items is None
    assert nothing.runs == [(0, len(log))]
    assert len(nothing.rows) == 0


@given(log=logs(vocabulary=NAMES), instant=INSTANTS, behind=st.integers(0, 3 * HOUR))
def test_a_question_between_two_pieces_of_news_is_told_what_the_newest_knew(
    log: SessionLog, instant: int, behind: int
) -> None:
    """Its windows end where knowledge ends, if that is not long ago; they never end after the question."""
    history = History.of(log)
    at = int(history.counted_at(np.array([instant]), behind)[0])
    if log.n_events == 0:
        assert at == instant
        return
    if history.shown is None:
        log = log.positives()
    newest = int(log.times.max())
    if newest < instant <= newest + 1 + behind:
        assert at == newest + 1
        assert (History.of(log).features(at, WINDOWS) != history.features(newest, WINDOWS)).any()
    else:
        assert at == instant


def test_questions_counted_at_one_instant_share_what_is_known() -> None:
    log = SessionLog.from_lists([[[0, 1, 2]]] * 5, vocabulary=NAMES)
    at = 60 * 10**10 + np.array([0, 59_999, 60_000, 60_001, 180_000])
    counted_at = at // MINUTE * MINUTE
    history = History.of(log)
    found = known(log, at, history, WINDOWS, repeat=False, counted_at=counted_at)
    assert found.runs == [(0, 2), (2, 4), (4, 5)]
    assert found.items is not None
    for g, (first, _) in enumerate(found.runs):
        np.testing.assert_array_equal(found.items[g].numpy(), history.features(int(counted_at[first]), WINDOWS))


# -- the network --------------------------------------------------------------------------------


class Counting(Network):
    """The query of a history is the sum of the vectors of its items, plus 1."""

    def __init__(self) -> None:
        super().__init__()
        self.items = ItemEmbedding(V, D, std=0.5)
        self.head = Head(self.items, bias=True)

    def forward(self, batch):
        return batch.events.with_values(self.items(batch.events.values)).sum() + 1

    def examples(self, batch):
        raise AssertionError


def network_of(history: History | None, repeat: bool = True) -> MomentNetwork:
    torch.manual_seed(0)
    n = 0 if history is None else history.n_features(len(WINDOWS))
    found = MomentNetwork(Counting(), n, repeat=repeat, width=3, hidden=5)
    for weight in found.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return found.eval()


def a_log() -> SessionLog:
    rng = np.random.default_rng(0)
    log = SessionLog.from_lists([[rng.integers(0, 5, 3).tolist()] * 2 for _ in range(4)] + [[]], vocabulary=NAMES)
    return replace(log, labels=(rng.random(log.n_events) < 0.7).astype(np.int8))


def asked(log: SessionLog, history: History | None, repeat: bool = True) -> AskedBatch:
    at = np.array([3, 3, 9, 4, 4]) * HOUR
    batch = Batch.of_log(log, at)
    return AskedBatch(
        batch.events, batch.sessions, batch.labels, None, None, known(log, at, history, WINDOWS, repeat=repeat),
        torch.tensor([1, 2, 3, 0, 5, 1]), torch.tensor([0, 0, 1, 2, 3, 4]),
        torch.tensor([4, 0, 3]), torch.tensor([0, 2, 2]),
    )  # fmt: skip


def scores_slowly(network: MomentNetwork, batch: AskedBatch) -> torch.Tensor:
    """Score one pair after another, as the formula of the module says."""
    then, found = batch.known, []
    assert then is not None
    weight, own = network.head.table()
    had = {(r, i): x for r, i, x in zip(then.rows.tolist(), then.had.tolist(), then.features, strict=True)}
    for q in range(len(batch)):
        a, z = batch.events.offsets[q], batch.events.offsets[q + 1]
        query = weight[batch.events.values[a:z]].sum(0) + 1 if z > a else torch.zeros(D)
        row = []
        for v in range(V):
            score = query @ weight[v] + network.bias[v] + own[v]
            if network.drift is not None:
                (moment,) = [g for g, (first, stop) in enumerate(then.runs) if first <= q < stop]
                score = score + network.of_drift(query) @ network.drift(then.items[moment, v])
            if network.repeat is not None and (q, v) in had:
                score = score + network.again[v] + network.of_repeat(query) @ network.repeat(had[q, v])
            row.append(score)
        found.append(torch.stack(row))
    return torch.stack(found)


FORMS = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize(("drift", "repeat"), FORMS)
def test_scores_are_what_the_formula_says(drift: bool, repeat: bool) -> None:
    log = a_log()
    history = History.of(log) if drift else None
    network, batch = network_of(history, repeat), asked(log, history, repeat)
    assert batch.known is not None
    with torch.no_grad():
        queries = network(batch)
        expected = scores_slowly(network, batch).numpy()
        never = np.arange(V) == 5
        found = answered(network, queries, batch.known, never)
    np.testing.assert_allclose(found[:, :5], expected[:, :5], rtol=1e-4, atol=1e-5)
    assert found[:, 5].max() < -9e5


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize(("drift", "repeat"), FORMS)
def test_the_loss_is_that_of_the_scores_one_by_one(drift: bool, repeat: bool, alpha: float) -> None:
    log = a_log()
    history = History.of(log) if drift else None
    network, batch = network_of(history, repeat), asked(log, history, repeat)
    found = moment_loss(network.examples(batch), network, alpha, smoothing=0.1)
    scores = scores_slowly(network, batch)
    retrieval, rank = [], []
    for item, q in zip(batch.positives.tolist(), batch.of_query.tolist(), strict=True):
        others = batch.positives[batch.of_query == q].tolist()
        rivals = [v for v in range(V) if v == item or v not in others]
        loss = scores[q, rivals].logsumexp(0) - scores[q, item]
        retrieval.append(loss + 0.1 * (scores[q, item] - scores[q].mean()))
        shown = batch.shown[batch.shown_of == q].tolist()
        if shown:
            rank.append(torch.log1p((scores[q, shown] - scores[q, item]).exp().sum()))
    expected = torch.stack(retrieval).mean() + alpha * torch.stack(rank).mean()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weights = list(network.parameters())
    mine = torch.autograd.grad(found, weights, allow_unused=True)
    theirs = torch.autograd.grad(expected, weights, allow_unused=True)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(
            torch.zeros(()) if one is None else one, torch.zeros(()) if other is None else other, rtol=1e-3, atol=1e-5
        )


def test_without_what_was_shown_the_rank_loss_is_nothing() -> None:
    log = a_log()
    history = History.of(log)
    network, batch = network_of(history), asked(log, history)
    nothing = replace(batch, shown=batch.shown[:0], shown_of=batch.shown_of[:0])
    plain = moment_loss(network.examples(nothing), network, 0.0)
    assert torch.equal(moment_loss(network.examples(nothing), network, 0.9), plain)
    assert torch.equal(moment_loss(network.examples(batch), network, 0.0), plain)


@given(
    wanted=st.lists(st.tuples(st.integers(0, 4), st.floats(-50, 50)), max_size=8),
    ignored=st.lists(st.tuples(st.integers(0, 4), st.floats(-50, 50)), max_size=8),
)
def test_the_rank_loss_is_eq_9(wanted: list[tuple[int, float]], ignored: list[tuple[int, float]]) -> None:
    losses = []
    for q, score in wanted:
        beside = [other for r, other in ignored if r == q]
        if beside:
            losses.append(torch.logsumexp(torch.tensor([0.0, *(x - score for x in beside)]).double(), 0).item())
    columns = [
        (torch.tensor([x for _, x in part]), torch.tensor([q for q, _ in part], dtype=torch.int64))
        for part in (wanted, ignored)
    ]
    found = rank_loss(*columns[0], *columns[1]).item()
    assert found == pytest.approx(np.mean(losses) if losses else 0.0, rel=1e-4, abs=1e-5)


def test_a_batch_is_moved_with_all_that_is_known() -> None:
    log = a_log()
    history = History.of(log)
    moved = asked(log, history).to(torch.device("meta"))
    assert isinstance(moved, AskedBatch)
    assert moved.known is not None
    columns = [moved.positives, moved.of_query, moved.shown, moved.shown_of, moved.events.values]
    columns += [moved.known.items, moved.known.rows, moved.known.had, moved.known.features]
    assert {x.device.type for x in columns if x is not None} == {"meta"}
    assert all(x is not None for x in columns)


# -- the settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"moment": {}, "loss": {"kind": "sampled_softmax"}}, "moment needs the loss of kind 'softmax'"),
        (
            {"moment": {}, "augment": [{"kind": "crop"}]},
            "moment puts questions as they were asked: augment must be empty",
        ),
        ({"moment": {"resolution": 0}}, "resolution"),
        ({"moment": {"windows": ["soon"]}}, "must be a duration"),
    ],
)
def test_settings_that_cannot_be(settings, said) -> None:
    with pytest.raises(ConfigError, match=said):
        SessionRec(**settings)


def test_a_log_without_times_has_no_moments() -> None:
    log = replace(a_log(), timed=False)
    with pytest.raises(ConfigError, match=r"moment\.windows count events .*or set moment\.windows = \[\]"):
        SessionRec(moment={}, dim=4).fit(log)
    model = SessionRec(moment={"windows": []}, dim=4, heads=1, layers=1, epochs=1).fit(
        log, runtime=Runtime(device="cpu")
    )
    assert model.history_ is None
    assert np.isfinite(model.scores(log).dense()).all()


def test_a_step_meets_a_share_of_the_items_as_new_ones_are_met() -> None:
    network = network_of(None)
    assert torch.equal(network.met()[0], network.head.table()[0])
    network.cold = 0.5
    mean, bias = network.head.table()[0].mean(0), network.biases().mean()
    shares = []
    for seed in range(50):
        torch.manual_seed(seed)
        table, biases = network.met()
        new = torch.all(table == mean, dim=1)
        shares.append(float(new.float().mean()))
        assert torch.equal(biases == bias, new)
        table.sum().backward()
        moved = network.head.items.weight.grad.abs().sum(1) > 0
        assert torch.equal(moved, ~new)
        network.zero_grad()
    assert 0.3 < np.mean(shares) < 0.7
    more = grown(network, V + 1)
    torch.testing.assert_close(more.head.table()[0][-1], mean)
    torch.testing.assert_close(more.biases()[-1], bias)
