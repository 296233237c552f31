"""Compiled networks answer as the networks do, without torch, and are refused where they cannot."""

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from nextsession import SessionLog, create, mapping, registry
from nextsession.cli import app
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.errors import ArtifactError, ConfigError, ModelError
from nextsession.golden import write_golden
from nextsession.serving.served import serve
from nextsession.testing.subjects import training_log

pytest.importorskip("onnxruntime", reason="needs the extra `runtime`")
pytest.importorskip("onnxscript", reason="needs the extra `compile`")

from nextsession.compiling import compare, compile_model, histories_of
from nextsession.runtime.kept import FOLDER, load_runtime

SMALL = {"dim": 8, "max_length": 12, "epochs": 1, "batch_size": 16}
ONE = {**SMALL, "layers": 1}
NETWORKS = {
    "sasrec": SMALL,
    "sasrec relative": {**SMALL, "positions": "relative", "heads": 2},
    "sasrec gsasrec": {**SMALL, "preset": "gsasrec"},
    "sasrec esasrec": {**SMALL, "preset": "esasrec", "heads": 2},
    "gru": {**SMALL, "layers": 2, "tied": False},
    "narm": {**SMALL, "width": 12},
    "stamp": SMALL,
    "caser": {**SMALL, "max_length": 4, "horizontal": 4},
    "bert4rec": SMALL,
    "hstu": SMALL,
    "hstu concat": {**SMALL, "time": "none", "heads": 2, "dqk": 4, "dv": 6, "concat": True, "normaliser": "constant"},
    "hstuplus": ONE,
    "sessionrec": ONE,
    "sessionrec gru": {**SMALL, "within": "weighed", "across": "gru", "layers": 1, "open": "never"},
    "sessionrec both": {**SMALL, "within": "separate", "across": "transformer", "tokens": "both", "layers": 1},
    "sessionrec latest": {**SMALL, "within": "latest", "layers": 1},
    "sessionrec max": {**SMALL, "within": "max-relu", "tokens": "sessions", "ignored_only": True, "layers": 1},
}
"""Every network that can be compiled, and every form of its parts that is written down in another way."""


def fitted(name, **settings):
    return create(name.split()[0], **settings).fit(training_log(users=40))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A SASRec, saved with golden requests and compiled."""
    folder = tmp_path_factory.mktemp("runtime") / "sasrec"
    model = fitted("sasrec", **ONE)
    model.save(folder)
    write_golden(model, folder)
    compile_model(model, folder)
    return model, folder


FIRST = ("gru", "hstuplus", "sessionrec")
"""To write a network down takes seconds: these three have most of the parts between them."""


@pytest.mark.parametrize(
    "name", [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_a_compiled_network_answers_as_the_network(name, tmp_path):
    model = fitted(name, **NETWORKS[name])
    model.save(tmp_path / "model")
    found = compile_model(model, tmp_path / "model")
    assert found.score < 1e-5
    assert found.same > 0.9
    made = load_runtime(tmp_path / "model")
    log, asked_at = histories_of(model, seed=5)  # others than those it was accepted by
    expected, answered = model.recommend(log, 10, asked_at=asked_at), made.recommend(log, 10, asked_at=asked_at)
    np.testing.assert_allclose(answered.scores, expected.scores, rtol=1e-4, atol=1e-4)
    for claim in ("name", "reads_clock", "reads_ignored", "reads_actions", "predicts"):
        assert getattr(made, claim) == getattr(model, claim)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [("sasrec", {"features": ("shade",)}), ("hstuplus", {}), ("sessionrec", {"features": ("shade",)})],
)
def test_side_features_and_kinds_of_events_are_read(name, settings, tmp_path):
    plain, rng = training_log(users=40), np.random.default_rng(0)
    n = plain.n_items
    shade = ItemFeature(np.arange(0, 2 * n + 1, 2), rng.integers(0, 5, 2 * n).astype(np.int32), tuple("abcde"))
    log = replace(
        plain,
        item_table=ItemTable({"shade": shade}),
        actions=rng.integers(0, 3, plain.n_events).astype(np.int16),
        action_names=("click", "cart", "buy"),
        labels=(rng.random(plain.n_events) < 0.8).astype(np.int8),
    )
    model = create(name, **ONE, **settings).fit(log)
    model.save(tmp_path / "model")
    compile_model(model, tmp_path / "model")
    made = load_runtime(tmp_path / "model")
    some = plain.rows(0, 9)  # without kinds
    for asked in (some, log.rows(0, 9)):
        np.testing.assert_allclose(made.scores(asked).queries, model.scores(asked).queries, rtol=1e-4, atol=1e-5)


def test_histories_of_all_kinds_are_compared():
    model = fitted("hstuplus", **ONE)
    log, asked_at = histories_of(model)
    sizes = np.diff(log.event_offsets)
    assert {0, 1, 2, 12, 13, 27} <= set(sizes.tolist())
    assert set(log.labels.tolist()) == {0, 1}
    assert (np.diff(log.user_offsets) > 1).any()
    unknown = ~np.isin(log.vocabulary.ids, model.vocabulary_.ids)
    assert unknown[log.items].any()
    assert (log.items[1:] == log.items[:-1]).any()
    assert len(set((asked_at - log.last_times).tolist())) > 3


def test_a_graph_that_answers_otherwise_is_refused(kept, tmp_path):
    model, _ = kept
    model.save(tmp_path / "model")
    with pytest.raises(ArtifactError, match="answers otherwise than the network"):
        compile_model(model, tmp_path / "model", tolerance=0)
    assert not (tmp_path / "model" / FOLDER).exists()


def test_a_comparison_sees_another_network(kept):
    _, folder = kept
    other = fitted("sasrec", **ONE, learning_rate=0.1)
    found = compare(other, load_runtime(folder))
    assert found.query > 0.01
    assert found.same < 0.5


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("sasrec", {**SMALL, "moment": {"windows": ["1h"]}}, "knows the moment"),
        ("srgnn", SMALL, "graph of every session"),
        ("sessionrec", {**SMALL, "within": "gru", "layers": 1}, "within = 'gru'"),
        ("gru4rec", {"layers": (8,), "batch_size": 4, "n_sample": 0, "epochs": 1}, "nothing to compile"),
    ],
)
def test_what_cannot_be_compiled_says_why(name, settings, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        compile_model(fitted(name, **settings), tmp_path)


def test_no_compiled_network_lies_beside_most_models(kept, tmp_path):
    kept[0].save(tmp_path / "model")
    assert load_runtime(tmp_path / "model") is None


def test_one_of_another_model_or_a_damaged_one_is_refused(kept, tmp_path):
    _, folder = kept
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    (copied / "manifest.json").write_text((copied / "manifest.json").read_text() + "\n")
    with pytest.raises(ArtifactError, match="of another model; run `nextsession compile"):
        load_runtime(copied)
    shutil.copyfile(folder / "manifest.json", copied / "manifest.json")
    graph = copied / FOLDER / "query.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match="damaged"):
        load_runtime(copied)
    with pytest.raises(ArtifactError, match="damaged"):
        serve(copied, gap=1000)


def test_it_does_not_learn(kept, tmp_path):
    made = load_runtime(kept[1])
    with pytest.raises(ModelError, match="compiled to be served"):
        made.fit(training_log(users=10))
    made = load_runtime(kept[1])
    with pytest.raises(ModelError, match="compiled to be served"):
        made.save(tmp_path / "again")
    assert not made.can_update


def test_a_server_answers_without_torch(kept):
    model, folder = kept
    ids = model.vocabulary_.ids[:3].tolist()
    program = f"""
import sys
from nextsession.serving.events import Kept
from nextsession.serving.served import serve
from nextsession.scores import Limits
served = serve({str(folder)!r}, gap=1800000)
events = tuple(Kept(10**13 + n, n, n, i, "click", 1) for n, i in enumerate({ids!r}))
top = served.top(served.history(events), 10**13 + 9, 5, Limits.none(1))
assert "torch" not in sys.modules, "torch was imported"
print(*served.catalogue.texts(top.items[0]), sep="|")
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    log = SessionLog.from_lists([[ids]], vocabulary=model.vocabulary_, times=[[[10**13, 10**13 + 1, 10**13 + 2]]])
    expected = next(iter(model.recommend(log, 5, asked_at=10**13 + 9)))
    assert found.stdout.strip().split("|") == [str(item) for item in expected]


def test_workers_share_the_items(kept):
    made = load_runtime(kept[1])
    scores = made.scores(SessionLog.from_lists([[]], vocabulary=made.vocabulary_))
    address = scores.items.ctypes.data
    assert any(one.begin <= address < one.end for one in mapping._maps.values()), "the vectors of the items were copied"


def test_the_command(kept, tmp_path):
    folder = tmp_path / "model"
    kept[0].save(folder)
    found = CliRunner().invoke(app, ["compile", str(folder)])
    assert found.exit_code == 0, found.output
    assert "lists are the same" in found.output
    assert registry.load(folder).name == "sasrec"
    assert load_runtime(folder) is not None
