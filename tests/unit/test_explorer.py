"""The explorer: what is shown of the inside of a model is what the model computes."""

import numpy as np
import pytest

from nextsession import SessionLog, create
from nextsession.errors import UnknownNameError
from nextsession.golden import write_golden
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import Event, Rules
from nextsession.serving.explorer import ExplorationMessage, explore, shares_of
from nextsession.serving.insides import gates, insides
from nextsession.serving.memory import MemoryStore
from nextsession.serving.questions import Question
from nextsession.serving.served import prepared, serve

GAP, NOW = 1_800_000, 1_700_000_000_000
TINY = {"dim": 8, "max_length": 12, "epochs": 2, "batch_size": 8}
GRU = {"layers": (6, 10), "batch_size": 4, "n_sample": 8, "epochs": 3}
LOG = SessionLog.from_lists([[["tea", "milk", "sugar", "tea"], ["tea", "milk"]], [["coffee", "sugar", "milk"]]] * 6)


def engine_of(**models):
    arms = {
        name: (prepared(create(name, **settings).fit(LOG), gap=GAP, version=name), 1.0)
        for name, settings in models.items()
    }
    return Engine(Arms(arms, now=NOW), MemoryStore(Rules()))


def look(engine, *sessions, **more):
    return explore(engine, ExplorationMessage(sessions=[list(one) for one in sessions], **more), NOW)


@pytest.fixture(scope="module")
def counting():
    return engine_of(markov={}, popular={})


@pytest.fixture(scope="module")
def recurrent():
    return engine_of(gru4rec={**GRU, "reads": "history"})


@pytest.fixture(scope="module")
def attentive():
    pytest.importorskip("torch")
    return engine_of(sasrec={**TINY, "heads": 2})


def one_row(*sessions):
    return SessionLog.from_lists([list(sessions)], vocabulary=LOG.vocabulary)


# -- what every model offers --------------------------------------------------------------------


def test_it_reads_what_the_visitor_did(counting):
    events = [Event(str(i), "ann", x, NOW - 1000 * (9 - i)) for i, x in enumerate(["tea", "unknown", "milk"])]
    counting.record(events, NOW).result()
    found = explore(counting, ExplorationMessage(visitor="ann", arm="markov"), NOW)
    assert [(x.item, x.known, x.given) for x in found.events] == [
        ("tea", True, True),
        ("unknown", False, False),
        ("milk", True, True),
    ]
    asked = counting.recommend(Question(visitor="ann", arm="markov", exclude="nothing", k=3), NOW)
    assert [x.item for x in found.softmax.top][:1] == [asked.items[0].item]


def test_made_up_sessions_are_cut_where_they_were_broken(counting):
    found = look(counting, ["tea", "milk"], [], ["sugar"], arm="markov")
    assert [x.session for x in found.events] == [0, 0, 1]
    assert found.events[2].time - found.events[1].time > GAP
    assert all(x.time <= NOW for x in found.events)


def test_places_of_what_came_next_are_those_of_recommend(counting):
    found = look(counting, ["coffee", "sugar", "milk", "tea"], arm="markov")
    model = counting.arms.named("markov").served.model
    items = ["coffee", "sugar", "milk", "tea"]
    for step, n in zip(found.steps, range(1, 5), strict=True):
        listed = model.recommend(one_row(items[:n]), 10, exclude="nothing")
        names = [LOG.vocabulary.ids[c] for c in listed.items[0] if c >= 0]
        assert [x.item for x in step.top] == names[:3]
        if n < 4 and items[n] in names:
            scores = dict(zip(names, listed.scores[0], strict=False))
            assert step.place == 1 + sum(s > scores[items[n]] for s in scores.values())
    assert found.steps[-1].place is None


def test_nothing_is_no_reason_to_fail(counting, recurrent, attentive):
    for engine in (counting, recurrent, attentive):
        for sessions in ([], [["never heard of"]]):
            found = look(engine, *sessions)
            assert found.steps == ()
            assert found.insides.gates is None
            assert found.insides.attention is None
            assert found.insides.nothing == "unread"


def test_nobody_is_stored(counting):
    look(counting, ["tea"], arm="markov")
    assert counting.store.record("", NOW).events == ()
    with pytest.raises(UnknownNameError):
        look(counting, ["tea"], arm="none")


def test_shares_add_up_and_cool(recurrent):
    warm, cold = (look(recurrent, ["tea", "milk"], temperature=t, k=4).softmax for t in (2.0, 0.3))
    for found in (warm, cold):
        assert found.kind == "softmax"
        assert found.reached[-1] == (4, pytest.approx(1.0, abs=1e-5))
        assert sum(x.probability for x in found.top) == pytest.approx(1.0, abs=1e-5)
    assert [x.item for x in warm.top] == [x.item for x in cold.top]
    assert cold.choices < warm.choices <= 4


def test_shares_of_counts():
    kind, shares = shares_of(np.array([4.0, -np.inf, 1.0]), 2.0)
    assert kind == "share"
    assert np.allclose(shares, [2 / 3, 0, 1 / 3])


# -- what some offer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"reset_gate": "after"}, {"embedding": "separate", "embedding_dim": 5}, {"embedding": "none"}],
    ids=str,
)
def test_gates_lead_to_the_state_that_is_scored(settings):
    model = create("gru4rec", **{**GRU, "reads": "history", **settings}).fit(LOG)
    log = one_row(["tea", "milk"], ["sugar", "coffee", "tea"])
    found = gates(model, log)
    assert len(found.update) == len(found.renewed) == log.n_events
    assert found.units == 10
    # the shares of memory and of the empty beginning make up the whole
    z = np.array(found.update)
    assert z.shape == (5, 10)
    memory = np.array([(z[t] * np.prod(1 - z[t + 1 :], axis=0)).mean() for t in range(5)])
    assert np.allclose(memory, found.memory, atol=1e-3)
    assert 0 < sum(found.memory) <= 1 + 1e-6


def test_gates_are_those_of_the_model():
    """The state that `gates` walks to is the one of `_states`: shown by a model of one layer, from its own gates."""
    from nextsession.nn.gru4rec_cell import weights_of

    model = create("gru4rec", layers=(7,), batch_size=4, n_sample=8, epochs=3, reads="history").fit(LOG)
    log = one_row(["tea", "milk", "sugar"])
    shape = model._shape()
    w, u, bias = weights_of(model.cells_, 0, shape.n_inputs, shape.n_units)
    h = np.zeros(7)
    for item, z in zip(log.items, gates(model, log).update, strict=True):
        x = model.items_[item, :-2]
        r = 1 / (1 + np.exp(-(w[:7, :7] @ x + u[:7, :7] @ h + bias[0, :7] + bias[3, :7])))
        c = np.tanh(w[14:, :7] @ x + bias[2, :7] + u[14:, :7] @ (r * h))
        h = (1 - np.array(z)) * h + np.array(z) * c
    assert np.allclose(h, model._states(log.items, np.array([0]), np.array([3]))[0], atol=1e-3)


def test_gates_of_a_model_of_sessions_begin_with_the_session():
    model = create("gru4rec", **GRU).fit(LOG)
    found = gates(model, one_row(["tea", "milk"], ["sugar", "coffee"]))
    assert found.first == 2
    assert len(found.renewed) == 2


@pytest.mark.parametrize("settings", [{}, {"norm": "pre", "positions": "relative"}, {"norm": "post"}], ids=str)
def test_attention_is_what_the_blocks_do(settings):
    torch = pytest.importorskip("torch")
    from nextsession.nn.batches import Rows
    from nextsession.slices import latest

    model = create("sasrec", **{**TINY, "heads": 2, "layers": 2, **settings}).fit(LOG)
    log = one_row(["tea", "milk"], ["sugar", "coffee"])
    found = insides(model, log, np.array([NOW])).attention
    assert found.causal
    weights = np.array(found.layers)
    assert weights.shape == (2, 2, 4, 4)
    assert np.allclose(weights.sum(-1), 1, atol=1e-3)
    assert np.allclose(np.triu(weights, 1), 0)
    block, network = model.network_.encoder.blocks[0], model.network_
    with torch.inference_mode():
        batch = Rows(log, latest(log.event_offsets, 12), np.array([NOW])).batch(np.zeros(1, np.int64))
        x = network.inputs(batch)
        rows = batch.events.with_values(x)
        q = x if block.form.norm == "post" else block.attention_norm(x)
        others = x if block.form.norm == "original" else q
        values = block.of_key_value(others).chunk(2, dim=-1)[1].view(4, 2, -1).transpose(0, 1)
        mixed = (torch.tensor(weights[0], dtype=torch.float32) @ values).transpose(0, 1).reshape(4, -1)
        assert torch.allclose(block.project(mixed), block._attend(q, others, rows, None), atol=1e-3)


def test_a_long_history_is_cut_where_the_model_cuts_it(attentive):
    found = look(attentive, ["tea", "milk", "sugar"] * 6).insides.attention
    assert found.first == 6
    assert len(found.layers[0][0]) == 12


def test_where_nothing_can_be_drawn_it_is_said_why(counting, recurrent, attentive):
    assert look(counting, ["tea"], arm="popular").insides.nothing == "counts"
    assert look(recurrent, ["tea"]).insides.nothing is None
    assert look(attentive, ["tea"]).insides.nothing is None
    assert look(engine_of(stamp=TINY), ["tea"]).insides.nothing == "network"


def test_a_compiled_network_says_that_it_is_one(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from nextsession.compiling import compile_model

    model = create("sasrec", **TINY).fit(LOG)
    model.save(tmp_path / "sasrec")
    write_golden(model, tmp_path / "sasrec")
    compile_model(model, tmp_path / "sasrec")
    engine = Engine(Arms({"main": (serve(tmp_path / "sasrec", gap=GAP), 1.0)}, now=NOW), MemoryStore(Rules()))
    found = look(engine, ["tea", "milk"])
    assert (found.model, found.insides.nothing, found.insides.attention) == ("sasrec", "compiled", None)
    assert len(found.steps) == 2, "the rest of the look is there"
