"""Indexes built beside the answers: every item is looked at meanwhile, then the index takes over whole."""

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient

from nextsession import SessionLog, Vocabulary, create
from nextsession.golden import write_golden
from nextsession.index.kept import build_index, save_index
from nextsession.serving.app import application
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.indexing import Indexing
from nextsession.serving.memory import MemoryStore
from nextsession.serving.questions import Question
from nextsession.serving.served import serve
from nextsession.serving.server import Server

NOW, GAP = 1_800_000_000_000, 1_800_000


def fitted(seed):
    rng = np.random.default_rng(seed)
    walks = [[((start + np.cumsum(rng.integers(0, 4, 6))) % 400).tolist()] for start in rng.integers(0, 400, 500)]
    log = SessionLog.from_lists(walks, vocabulary=Vocabulary(np.arange(400)))
    return create("gru4rec", layers=(16,), n_sample=64, epochs=1, batch_size=32).fit(log)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("one", 0), ("other", 1)):
        model = fitted(seed)
        model.save(folder / name)
        write_golden(model, folder / name)
    create("markov").fit(SessionLog.from_lists([[[1, 2, 3]]])).save(folder / "markov")
    return folder


@pytest.fixture
def place(models, tmp_path):
    shutil.copytree(models, tmp_path / "models")
    return tmp_path / "models"


def arms_of(*places):
    return Arms({p.name: (serve(p, gap=GAP), 1.0) for p in places}, now=NOW)


def until(indexing, true):
    for _ in range(1200):
        indexing.look()
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"it does not come to pass: {indexing.health()}")


def indexed(place, kind="ivf"):
    one = serve(place, gap=GAP)
    save_index(build_index(one.model, kind, least_recall=0.8), place, least_recall=0.8)


def test_an_index_is_built_while_every_item_is_looked_at_and_then_takes_over(place):
    arms = arms_of(place / "one", place / "markov")
    server = Server(Engine(arms, MemoryStore()), lambda p: serve(p, gap=GAP), lambda: NOW, models=(place,), index="ivf")
    server.indexing = Indexing(arms, "ivf", 0.8)
    question = Question(items=("7", "8"), k=20, arm="one")
    with TestClient(application(server)) as client:
        (health,) = client.get("/v1/operations").json()["index"]
        assert (health["arm"], health["kind"], health["building"], health["ok"]) == ("one", "exact", True, True)
        before = server.engine.recommend(question, NOW)
        held = arms.named("one").served
        until(server.indexing, lambda: arms.named("one").served.index is not None)
        after = server.engine.recommend(question, NOW)
        assert held.index is None, "whoever held the model goes on without"
        assert after.version == before.version
        assert len({x.item for x in before.items} & {x.item for x in after.items}) >= 16
        server.second()
        (health,) = client.get("/v1/operations").json()["index"]
        assert (health["kind"], health["building"], health["items"], health["failure"]) == ("ivf", False, 400, None)
        assert health["recall"] >= health["promised"] == 0.8
        assert health["built_at"] > 0
        text = client.get("/metrics").text
        assert 'nextsession_index_building{arm="one"} 0' in text
        assert 'nextsession_index_recall{arm="one"} ' in text


def test_an_index_is_wished_for_with_the_model(place):
    arms = arms_of(place / "one")
    server = Server(Engine(arms, MemoryStore()), lambda p: serve(p, gap=GAP), lambda: NOW, models=(place,))
    server.indexing = Indexing(arms, None, 0.8)
    with TestClient(application(server)) as client:
        load = {"do": "load", "arm": "one", "artifact": str(place / "other"), "index": "pq"}
        assert client.post("/v1/models", json={**load, "index": "best"}).status_code == 422
        assert client.post("/v1/models", json=load).status_code == 200
        until(server.indexing, lambda: arms.named("one").served.index is not None)
        assert arms.named("one").served.index.kind == "pq"
        client.post("/v1/models", json={"do": "roll_back", "arm": "one"})
        assert arms.named("one").served.index is None


def test_what_cannot_be_built_is_noted_and_tried_again_when_wished_for(place):
    arms = arms_of(place / "one")
    indexing = Indexing(arms, "ivf", 0.8)
    arrays = (place / "one" / "arrays.safetensors").read_bytes()
    (place / "one" / "arrays.safetensors").rename(place / "kept")  # what is served is mapped: it stays as it is
    (place / "one" / "arrays.safetensors").write_bytes(b"nothing")
    until(indexing, lambda: indexing.health()[0]["failure"])
    (health,) = indexing.health()
    assert (health["ok"], health["building"], health["kind"]) == (False, False, "exact")
    assert "arrays.safetensors is damaged" in health["failure"]
    assert indexing.failures == 1
    indexing.look()
    assert not indexing.health()[0]["building"], "it would fail again"
    (place / "one" / "arrays.safetensors").write_bytes(arrays)
    indexing.wish(arms.named("one").served.version, "ivf")
    until(indexing, lambda: arms.named("one").served.index is not None)
    assert indexing.health()[0]["ok"]
    indexing.close()


def test_an_index_that_appears_is_taken_into_use_unless_it_is_of_another_model_or_damaged(place):
    arms = arms_of(place / "one", place / "other")
    indexing = Indexing(arms)
    indexing.look()
    assert [row["kind"] for row in indexing.health()] == ["exact", "exact"]
    indexed(place / "one")
    indexing.look()
    assert [row["kind"] for row in indexing.health()] == ["ivf", "exact"]
    indexed(place / "other")
    (place / "other" / "index" / "codes.npy").write_bytes(b"nothing")
    indexing.look()
    indexing.look()
    assert "codes.npy is damaged" in indexing.health()[1]["failure"]
    assert indexing.failures == 1, "it is looked at again when it is written again"
    shutil.rmtree(place / "other")
    shutil.copytree(place / "one", place / "other")
    indexing.look()
    assert indexing.health()[1]["kind"] == "exact", "a model that is not served has taken the place of this one"


def test_one_worker_builds_and_all_use_it(place):
    workers = [Indexing(arms_of(place / "one"), "ivf", 0.8) for _ in range(2)]
    for worker in workers:
        worker.look()
    assert [worker.health()[0]["building"] for worker in workers] == [True, False]
    for worker in workers:
        until(worker, lambda worker=worker: worker.health()[0]["kind"] == "ivf" and worker._building is None)


def test_a_model_that_was_told_what_happened_gets_no_index_of_what_it_was_before(place):
    arms = arms_of(place / "one")
    base = arms.named("one").served
    assert arms.learn("one", replace(base, version=f"{base.version}+7", before=base))
    indexing = Indexing(arms, "ivf", 0.8)
    indexed(place / "one")
    indexing.look()
    assert (indexing.health()[0]["kind"], indexing.health()[0]["building"]) == ("exact", False)
    arms.learn("one", base)
    indexing.look()
    assert indexing.health()[0]["kind"] == "ivf"


def test_what_is_being_built_ends_with_the_server(place):
    indexing = Indexing(arms_of(place / "one"), "ivf", 0.8)
    indexing.look()
    process = indexing._building.process
    indexing.close()
    assert process.poll() is not None
    assert not (place / "one" / "index").exists()
