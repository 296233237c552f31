"""GRU4Rec: its parts, and the mistakes that other implementations made."""

import numpy as np
import pytest
from scipy import stats

from nextsession import Cases, Runtime, SessionLog
from nextsession.errors import ConfigError, TrainingError
from nextsession.mapping import RowReader
from nextsession.models.gru4rec import GRU4Rec
from nextsession.nn import gru4rec_math as fast
from nextsession.nn.gru4rec_products import LANES, multiply, multiply_transposed
from nextsession.nn.session_parallel import SessionParallel

SMALL = {"layers": (12,), "batch_size": 4, "n_sample": 8, "epochs": 25, "learning_rate": 0.2}
HOUR = 3_600_000


def cycle(n_items: int = 10, sessions: int = 30) -> SessionLog:
    rng = np.random.default_rng(0)
    return SessionLog.from_lists(
        [[((rng.integers(n_items) + np.arange(5)) % n_items).tolist()] for _ in range(sessions)]
    )


# -- session-parallel batches ---------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 13, 64])
def test_every_pair_is_used_once(batch_size):
    lengths = np.random.default_rng(batch_size).integers(1, 8, 50)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    steps = list(SessionParallel(offsets[:-1], offsets[1:], batch_size))
    used = np.concatenate([step.inputs for step in steps])
    pairs = np.setdiff1d(np.arange(offsets[-1]), offsets[1:] - 1)  # every event but the last of each session
    assert np.array_equal(np.sort(used), pairs)
    sizes = [len(step.inputs) for step in steps]
    assert sizes == sorted(sizes, reverse=True)


def test_a_state_is_reset_when_its_own_session_ends_and_never_else():
    offsets = np.array([0, 3, 9, 12, 14])
    session, steps = {}, list(SessionParallel(offsets[:-1], offsets[1:], 2))
    for step in steps:
        now = {}
        for row, (event, fresh, before) in enumerate(zip(step.inputs, step.fresh, step.kept, strict=True)):
            now[row] = int(np.searchsorted(offsets, event, "right"))
            assert fresh == (event in offsets)
            assert fresh or session[before] == now[row]
        session = now


def test_no_session_long_enough_gives_no_step():
    assert list(SessionParallel(np.array([0, 1]), np.array([1, 2]), 4)) == []


def test_what_a_session_learns_does_not_depend_on_when_its_neighbours_end():
    """The state of a row after others ended is that of the session alone (scores of a fitted model)."""
    model = GRU4Rec(**SMALL | {"epochs": 2}).fit(cycle())
    long = [0, 1, 2, 3, 4, 5, 6]
    alone = model.scores(SessionLog.from_lists([[long]])).dense()
    among = model.scores(SessionLog.from_lists([[[3]], [long], [[5, 6]], []])).dense()[1]
    assert among == pytest.approx(alone[0], rel=1e-5, abs=1e-6)


def test_an_earlier_session_matters_only_to_a_model_that_reads_histories():
    asked = SessionLog.from_lists([[[7, 8], [1, 2]], [[1, 2]]])
    for reads, same in (("session", True), ("history", False)):
        scores = GRU4Rec(**SMALL | {"epochs": 2, "reads": reads}).fit(cycle()).scores(asked).dense()
        assert np.allclose(scores[0], scores[1], atol=1e-6) == same


# -- arithmetic -----------------------------------------------------------------------------------


def test_sigmoids():
    for value in np.linspace(-100, 100, 81).astype(np.float32):
        assert fast.sigmoid(value) == pytest.approx(1 / (1 + np.exp(-float(value))), abs=1e-6)
        assert fast.tanh(value) == pytest.approx(np.tanh(float(value)), abs=1e-6)
    assert np.isnan(fast.sigmoid(np.float32(np.nan)))  # a network that diverged stays visible
    assert np.isnan(fast.tanh(np.float32(np.nan)))


@pytest.mark.parametrize("rows", [1, 6, 8, 37])
def test_products(rows):
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(rows, 50)).astype(np.float32), rng.normal(size=(50, 3 * LANES)).astype(np.float32)
    c = np.ones((rows, 3 * LANES), np.float32)
    multiply(c, a, b, rows, 50, 2 * LANES, True)
    assert c[:, : 2 * LANES] == pytest.approx(1 + (a @ b)[:, : 2 * LANES], abs=1e-4)
    assert np.all(c[:, 2 * LANES :] == 1)
    multiply_transposed(c, np.ascontiguousarray(a.T), b, rows, 50, 3 * LANES, False)
    assert c == pytest.approx(a @ b, abs=1e-4)


def test_items_are_drawn_by_the_power_of_their_popularity():
    support = np.random.default_rng(0).integers(0, 40, 60).astype(float)
    weights = support**0.75
    drawn = np.empty(200_000, np.int32)
    fast.draw(drawn, *fast.alias_table(weights), np.uint64(5))
    counts = np.bincount(drawn, minlength=60)
    assert np.all(counts[weights == 0] == 0)
    some = weights > 0
    assert stats.chisquare(counts[some], len(drawn) * weights[some] / weights.sum()).pvalue > 1e-4


@pytest.mark.parametrize("p", [0.0, 0.3, 0.999])
def test_dropout_keeps_the_mean_and_drops_the_same_again(p):
    values = np.ones((200, 100), np.float32)
    fast.drop(values, 90, p, np.uint32(3))
    assert np.mean(values[:, :90] == 0) == pytest.approx(p, abs=0.01)
    assert np.all(np.isclose(values[values > 0], 1 / (1 - p)) | (values[values > 0] == 1))
    assert np.all(values[:, 90:] == 1)
    again = np.ones((200, 100), np.float32)
    fast.drop(again, 90, p, np.uint32(3))
    assert np.array_equal(values, again)


# -- the model ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"layers": (12, 12)}, {"embedding": "separate"}, {"embedding": "none"}, {"logq": "exact"}, {"n_sample": 0},
        {"loss": "bpr-max", "activation": "elu"}, {"loss": "top1-max", "activation": "elu"}, {"loss": "top1"},
        {"loss": "bpr"}, {"momentum": 0.3, "random_order": True}, {"dropout_hidden": 0.1, "reset_gate": "after"},
    ],
    ids=str,
)  # fmt: skip
def test_every_variant_learns_a_cycle(changed):
    model = GRU4Rec(**SMALL | {"layers": (24,), "dropout_embed": 0.0, "epochs": 40} | changed).fit(cycle())
    asked = SessionLog.from_lists([[[i, (i + 1) % 10]] for i in range(10)])
    assert [ids[0] for ids in model.recommend(asked, 1)] == [(i + 2) % 10 for i in range(10)]


def test_learns_to_repeat_the_last_item():
    sessions = np.repeat(np.random.default_rng(0).integers(0, 12, 80), 4).reshape(80, 4)
    model = GRU4Rec(**SMALL).fit(SessionLog.from_lists([[s.tolist()] for s in sessions]))
    items = np.unique(sessions)
    assert [ids[0] for ids in model.recommend(SessionLog.from_lists([[[i]] for i in items]), 1)] == items.tolist()


def test_an_empty_history_is_ranked_by_popularity():
    log = SessionLog.from_lists([[["a", "b"]], [["b", "b"]], [["c", "b", "a"]]])
    assert next(iter(GRU4Rec(**SMALL).fit(log).recommend(SessionLog.from_lists([[]]), 3))) == ["b", "a", "c"]


@pytest.mark.parametrize("example", range(3))
@pytest.mark.parametrize("states", [1, 7, 4_000])
def test_a_state_that_is_remembered_is_that_of_the_whole_history(example, states, monkeypatch):
    """Histories that grow, are asked about again, change in their past and share beginnings, some at a time."""
    monkeypatch.setattr("nextsession.models.gru4rec._STATES", states)
    log, settings = cycle(), GRU4Rec.examples()[example]
    model, rng = GRU4Rec(**settings).fit(log, runtime=Runtime(seed=3)), np.random.default_rng(example)
    rows_read, whole = [], RowReader.rows
    monkeypatch.setattr(RowReader, "rows", lambda self, codes: rows_read.append(len(codes)) or whole(self, codes))
    visitors = [list(rng.integers(0, 10, 3)) for _ in range(6)]
    asked = events = 0
    for turn in range(60):
        some = rng.choice(6, rng.integers(1, 6), replace=turn % 5 == 0)
        for visitor in some:
            if rng.random() < 0.8:
                visitors[visitor].append(int(rng.integers(10)))
            elif rng.random() < 0.3:
                visitors[visitor][int(rng.integers(len(visitors[visitor])))] = int(rng.integers(10))
        histories = SessionLog.from_lists(
            [[[int(log.vocabulary.ids[code]) for code in visitors[v]]] for v in some], vocabulary=log.vocabulary
        )
        before = sum(rows_read)
        found = model.scores(histories).dense()
        asked, events = asked + sum(rows_read) - before, events + histories.n_events
        kept, model._found_out = model._ready().states, None
        assert np.allclose(found, model.scores(histories).dense(), rtol=1e-5, atol=1e-6)
        model._found_out = model._found_out._replace(states=kept)
        assert len(kept) <= states
    assert asked < events / 3 if states == 4_000 else asked <= events


def test_without_a_pair_to_learn_from_it_still_answers():
    model = GRU4Rec(**SMALL).fit(SessionLog.from_lists([[["a"]], [["b"]]]))
    assert model.curve_.shape == (0, 4)
    assert len(next(iter(model.recommend(SessionLog.from_lists([[["a"]]]), 2)))) == 2


def test_one_seed_one_model_to_the_bit():
    first, again = (GRU4Rec(**SMALL | {"epochs": 3}).fit(cycle(), runtime=Runtime(seed=2)) for _ in range(2))
    for name, values in first._arrays().items():
        if name != "curve_":
            assert np.array_equal(values, again._arrays()[name]), name


def test_a_loss_that_is_no_number_is_told_with_a_remedy():
    with pytest.raises(TrainingError, match=r"epoch 1 at step \d+: lower learning_rate \(it is 1e\+30\)"):
        GRU4Rec(**SMALL | {"learning_rate": 1e30, "loss": "bpr-max"}).fit(cycle())


def validation() -> Cases:
    asked = SessionLog.from_lists([[[i, (i + 1) % 10]] for i in range(10)])
    targets = asked.vocabulary.encode([(i + 2) % 10 for i in range(10)])
    return Cases(asked, np.full(10, 10 * HOUR), targets, np.arange(11), np.arange(10))


def test_stops_when_the_validation_gets_no_better():
    model = GRU4Rec(**SMALL | {"epochs": 200, "patience": 3, "layers": (24,)}).fit(cycle(), validation=[validation()])
    scores = model.curve_[:, 2]
    assert len(scores) < 200
    best = int(np.argmax(scores))
    assert len(scores) == best + 4
    assert model._validated([validation()]) == pytest.approx(scores[best])  # the best is kept, not the last


def test_the_curve_says_what_happened_and_progress_is_told():
    told = []
    model = GRU4Rec(**SMALL | {"epochs": 3})
    model.fit(cycle(), progress=lambda task, done, total: told.append((done, total)))
    assert model.curve_[:, 0].tolist() == [1, 2, 3]
    assert model.curve_[2, 1] < model.curve_[0, 1]
    assert np.all(np.isnan(model.curve_[:, 2]))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    "settings",
    [{"activation": "elu"}, {"n_sample": 0, "batch_size": 1}, {"logq": -1.0}, {"layers": ()}, {"dropout_hidden": 1.0}],
    ids=str,
)
def test_settings_that_fit_together(settings):
    with pytest.raises(ConfigError):
        GRU4Rec(**settings)
