"""An index beside its model: built for it, refused for another, used by the server."""

import json

import numpy as np
import pytest

from nextsession import SessionLog, Vocabulary, create
from nextsession.data.log import offsets_of
from nextsession.errors import ArtifactError, ConfigError, ModelError
from nextsession.golden import check_golden, write_golden
from nextsession.index.contract import Exact, best_of, share_found
from nextsession.index.kept import build_index, load_index, queries_of, save_index, vectors_of
from nextsession.index.lists import InvertedLists
from nextsession.recommender import Recommender
from nextsession.scores import Limits, TopK
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import Event
from nextsession.serving.memory import MemoryStore
from nextsession.serving.questions import Question
from nextsession.serving.served import serve

NOW = 1_800_000_000_000


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    walks = [[((start + np.cumsum(rng.integers(0, 4, 6))) % 800).tolist()] for start in rng.integers(0, 800, 1500)]
    log = SessionLog.from_lists(walks, vocabulary=Vocabulary(np.arange(900)))
    return create("gru4rec", layers=(16,), n_sample=64, epochs=2, batch_size=32).fit(log)


def test_queries_are_what_the_model_makes_of_histories(model):
    queries = queries_of(model, number=50)
    assert queries.shape == (50, vectors_of(model).shape[1])
    assert np.array_equal(queries, queries_of(model, number=50))
    assert len(np.unique(queries[:, 0])) > 25


def test_models_without_vectors_have_no_index():
    markov = create("markov").fit(SessionLog.from_lists([[["a", "b"]]]))
    assert vectors_of(markov) is None
    with pytest.raises(ConfigError, match="markov does not score by products of vectors, so there is nothing to index"):
        build_index(markov, "ivf")


@pytest.mark.parametrize("kind", ["exact", "ivf", "pq", "hnsw"])
def test_an_index_lies_beside_its_model_and_is_served(model, kind, tmp_path):
    place = tmp_path / "m"
    model.save(place)
    assert load_index(model, place) is None
    made = build_index(model, kind, least_recall=0.9)
    save_index(made, place, least_recall=0.9)
    served = serve(place, gap=1_800_000)
    assert served.index.kind == kind
    assert served.index.recall >= 0.9
    engine = Engine(Arms({"main": (served, 1.0)}, now=NOW), MemoryStore())
    plain = serve_plain(model)
    same = 0
    for visitor in range(60):
        event = Event("e", f"v{visitor}", str(13 * visitor), NOW)
        question = Question(visitor=f"v{visitor}", event=event, k=10, deny=("3", "4"), shown=False)
        found = [(x.item, x.source) for x in engine.recommend(question, NOW).items]
        expected = [(x.item, x.source) for x in plain.recommend(question, NOW).items]
        same += len(set(found) & set(expected))
        assert not {"3", "4"} & {item for item, _ in found}
    assert same >= 0.9 * 600 if kind != "exact" else same == 600


def serve_plain(model):
    from nextsession.serving.served import prepared

    return Engine(Arms({"main": (prepared(model, gap=1_800_000), 1.0)}, now=NOW), MemoryStore())


def test_an_index_knows_what_is_listed_for_nobody_and_answers_golden_requests(model, tmp_path, monkeypatch):
    place = tmp_path / "m"
    model.save(place)
    write_golden(model, place)
    save_index(build_index(model, "ivf", least_recall=0.9), place, least_recall=0.9)
    plain = serve_plain(model).arms.named("main").served
    with monkeypatch.context() as within:
        within.setattr(Recommender, "recommend", None)  # which looks at every item
        served = serve(place, gap=1_800_000)
    assert served.asked == 16
    assert served.usual == plain.usual
    assert np.array_equal(served.known_usual.items, plain.known_usual.items)
    assert np.array_equal(served.known_usual.scores, plain.known_usual.scores)


def test_golden_requests_that_an_index_fails_are_asked_of_the_model(model, tmp_path):
    model.save(tmp_path / "m")
    write_golden(model, tmp_path / "m")
    asked = []

    def fails(queries, k):
        asked.append(len(queries))
        return TopK(np.full((len(queries), k), 899, np.int32), np.zeros((len(queries), k), np.float32))

    assert check_golden(model, tmp_path / "m", fails) == 16
    assert asked == [16]


def test_an_index_of_another_model_or_a_damaged_one_is_refused(model, tmp_path):
    place = tmp_path / "m"
    model.save(place)
    save_index(build_index(model, "ivf", least_recall=0.9), place, least_recall=0.9)
    manifest = json.loads((place / "index" / "manifest.json").read_text())
    (place / "index" / "manifest.json").write_text(json.dumps({**manifest, "least_recall": 1.01}))
    with pytest.raises(ArtifactError, match=r"finds [01]\.\d+ of the best items, and 1\.01 was promised"):
        load_index(model, place)
    (place / "index" / "manifest.json").write_text(json.dumps({**manifest, "model": "another"}))
    with pytest.raises(ArtifactError, match=r"is of another model; run `nextsession index .*` again"):
        serve(place, gap=1)
    (place / "index" / "manifest.json").write_text(json.dumps(manifest))
    (place / "index" / "codes.npy").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=r"codes\.npy is damaged"):
        serve(place, gap=1)
    (place / "index" / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    with pytest.raises(ArtifactError, match=r"was built by an older version; run `nextsession index .*` again"):
        serve(place, gap=1)


def test_a_promise_that_cannot_be_kept_is_refused(model):
    with pytest.raises(
        ArtifactError, match=r"The index 'ivf' finds [01]\.\d+ of the best 100 items, and 1\.01 was promised"
    ):
        build_index(model, "ivf", least_recall=1.01)


def test_exact_is_the_reference(model):
    queries = queries_of(model, number=20)
    index = build_index(model, "exact")
    assert isinstance(index, Exact)
    from nextsession.scores import DotScores

    assert np.array_equal(index.search(queries, 7).items, DotScores(queries, vectors_of(model)).top(7).items)


def test_lists_are_chosen_by_the_scatter_of_their_vectors_too():
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(40, 64)).astype(np.float32)
    near = np.repeat(middles, 60, axis=0) + 0.3 * rng.normal(size=(2400, 64)).astype(np.float32)
    anywhere = 1.5 * rng.normal(size=(2400, 64)).astype(np.float32)
    vectors = np.concatenate([near, anywhere])
    queries = middles[rng.integers(40, size=100)] + rng.normal(size=(100, 64)).astype(np.float32)
    index = InvertedLists.build(vectors, queries, least_recall=0.5)
    index.effort = 8
    truth = best_of(vectors, queries)
    with_scatter = share_found(index, queries, truth)
    index.middles[:, -1] = 0
    assert with_scatter > 0.02 + share_found(index, queries, truth)


def found_slowly(index, query, number, allowed):
    """What the lists of a query should give, one step at a time: its best, and all that lies in its lists."""
    wide = index.codes.shape[1]
    asked = np.zeros(wide)
    asked[: len(index.columns)] = query[index.columns]
    length = np.linalg.norm(query[np.append(index.columns, index.steady)])
    means = index._rough * index._worth[:, None].astype(np.float64)
    assert np.abs(means - index.middles[:, :wide]).max(initial=0) <= 0.51 * index._worth.max(initial=0)
    promises = means @ asked + index.middles[:, wide] + length * index.middles[:, wide + 1]
    places = []
    for one in np.argsort(-promises)[: index.effort]:
        places += range(index.starts[one], index.starts[one + 1])
    scale = np.zeros(wide)
    scale[: len(index.columns)] = index.scales
    scores = {p: float(index.codes[p] @ (asked * scale) + index.extra[p]) for p in places if allowed[index.items[p]]}
    best = sorted(scores, key=lambda place: -scores[place])
    return {int(index.items[p]) for p in best[:number]}, {int(index.items[p]) for p in best}


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_lists_hold_what_looking_through_them_slowly_finds(steady, share):
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(5000, 23)).astype(np.float32)
    vectors[:, 5] = 0
    queries = rng.normal(size=(40, 23)).astype(np.float32)
    queries[:, 7] = 0
    if steady:
        queries[:, 20:] = [1, 0.5, 0]
    index = InvertedLists.build(vectors, queries, least_recall=0.3)
    index.effort = 10
    allowed = rng.random(5000) < share
    barred = [rng.integers(5000, size=n).astype(np.int32) for n in rng.integers(0, 200, len(queries))]
    limits = Limits(offsets_of([len(some) for some in barred]), np.concatenate(barred), None if share == 1 else allowed)
    offsets, codes = index._candidates(queries, 20, limits)
    for query, some, a, z in zip(queries, barred, offsets[:-1], offsets[1:], strict=True):
        left = allowed.copy()
        left[some] = False
        found = codes[a:z].tolist()
        best, every = found_slowly(index, query, 25, left)
        assert len(found) == 25
        assert best == set(found) <= every


def test_a_query_unlike_those_that_lists_were_made_for_is_answered_exactly():
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(3000, 10)).astype(np.float32)
    queries = rng.normal(size=(60, 10)).astype(np.float32)
    queries[:, 8:] = [1, 0]
    index = InvertedLists.build(vectors, queries, least_recall=0.3)
    index.effort = 1
    nobody, twice = np.zeros((2, 10), np.float32)
    nobody[9], twice[:9] = 1, 2
    asked = np.stack([queries[0], nobody, twice])
    found, exact = index.search(asked, 30).items, best_of(vectors, asked)[:, :30]
    assert np.array_equal(found[1:], exact[1:])
    assert not np.array_equal(found[0], exact[0])
    for vector in (np.zeros((0, 10), np.float32), np.full((2, 10), np.nan, np.float32)):
        if len(vector):
            with pytest.raises(ModelError, match="A score is NaN"):
                index.search(vector, 5)
        else:
            assert index.search(vector, 5).items.shape == (0, 5)
