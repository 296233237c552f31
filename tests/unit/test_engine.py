"""The engine: fallbacks, filters, arms, swaps, consent, explanations; no HTTP."""

import numpy as np
import pytest

from nextsession import SessionLog, create
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.errors import ArtifactError, ConfigError, DataError, StoreError, UnknownNameError
from nextsession.golden import write_golden
from nextsession.popularity import write_popularity
from nextsession.recommender import Recommender
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import Event, Rules
from nextsession.serving.memory import MemoryStore
from nextsession.serving.questions import Question
from nextsession.serving.recent import Recent
from nextsession.serving.served import prepared, serve

GAP, NOW = 1_800_000, 1_700_000_000_000
LOG = SessionLog.from_lists([[["tea", "milk", "sugar"], ["tea", "milk"]], [["coffee", "sugar", "milk"]], [["soap"]]])
TABLE = ItemTable(
    {"kind": ItemFeature.of([["drink"], ["drink", "white"], ["wash"], ["food", "white"], ["drink"]])},
    np.array(["Coffee beans", "Fresh milk", "Olive soap", "Brown sugar", "Green tea"], dtype=object),
)


class Broken(MemoryStore):
    """A store that can fail."""

    broken = False

    def record(self, visitor, now):
        if self.broken:
            raise StoreError("the disk is gone")
        return super().record(visitor, now)

    def submit(self, events, now):
        if self.broken:
            raise StoreError("the disk is gone")
        return super().submit(events, now)


def served(name="markov", version="v1", **settings):
    return prepared(create(name, **settings).fit(LOG), gap=GAP, table=TABLE, version=version)


def engine(*arms, store=None):
    named = {f"arm{i}": (one, 1.0) for i, one in enumerate(arms)} if arms else {"main": (served(), 1.0)}
    return Engine(Arms(named, now=NOW), store or Broken())


def click(item, visitor="ann", at=-1000, name=None, **more):
    return Event(name or f"{item}{at}", visitor, item, NOW + at, **more)


def ids(answer, source=None):
    return [one.item for one in answer.items if source in (None, one.source)]


def ask(one, now=NOW, **question):
    return one.recommend(Question(**{"visitor": "ann", "k": 5, **question}), now)


# -- lists --------------------------------------------------------------------------------------


def test_a_list_is_filled_and_says_where_each_item_came_from():
    one = engine()
    one.record([click("soap", "bob")], NOW).result()
    one.refresh(NOW)
    answer = ask(one, event=click("tea"))
    assert [(x.item, x.source) for x in answer.items] == [
        ("milk", "model"),
        ("soap", "recent"),
        ("sugar", "any"),
        ("coffee", "any"),
    ] or [x.source for x in answer.items][:2] == ["model", "recent"]
    assert set(ids(answer)) == {"milk", "soap", "sugar", "coffee"}, "tea is in the session"
    assert answer.degraded == ()
    assert answer.items[0].title == "Fresh milk"


def test_nobody_known_gets_what_many_want():
    one = engine(served("popular"))
    answer = ask(one, visitor="new", k=2)
    assert ids(answer, "model") == ids(answer)
    assert ids(ask(one, visitor=None, k=2)) == ids(answer)


def test_items_that_no_model_knows_can_be_listed_for_being_wanted():
    one = engine()
    one.record([click("novelty", "bob"), click("disliked", "bob", label=0)], NOW).result()
    one.refresh(NOW)
    listed = {x.item: x.source for x in ask(one, k=20).items}
    assert listed["novelty"] == "recent"
    assert "disliked" not in listed
    assert "novelty" not in ids(ask(one, k=20, where={"kind": ("drink",)}))


def test_exclusion_holds_for_the_whole_list():
    one = engine()
    one.record([click("milk", at=-2 * GAP), click("tea"), click("soap", at=-900)], NOW).result()
    assert set(ids(ask(one, k=9))) == {"milk", "sugar", "coffee"}
    assert set(ids(ask(one, k=9, exclude="history"))) == {"sugar", "coffee"}
    assert set(ids(ask(one, k=9, exclude="nothing"))) == {"milk", "sugar", "coffee", "tea", "soap"}
    assert set(ids(ask(one, k=9, item="sugar"))) == {"milk", "coffee"}


def test_filters_hold_for_the_whole_list():
    one = engine()
    one.record([click("novelty", "bob"), click("soap", "bob")], NOW).result()
    one.refresh(NOW)
    assert set(ids(ask(one, items=("tea",), deny=("milk",)))) == {"soap", "novelty", "sugar", "coffee"}
    assert set(ids(ask(one, allow=("soap", "nothing", "novelty")))) == {"soap", "novelty"}
    assert set(ids(ask(one, where={"kind": ("white",)}))) == {"milk", "sugar"}
    assert ids(ask(one, where={"kind": ("white", "wash")}, allow=("soap",))) == ["soap"]
    assert ids(ask(one, where={"kind": ("unheard of",)})) == []
    with pytest.raises(
        DataError, match=r"where: items have no feature 'kinds'\. Did you mean 'kind'\? Features: kind\."
    ):
        ask(one, where={"kinds": ("white",)})


def test_what_is_out_of_stock_is_not_listed_by_any_worker():
    one = engine()
    other = engine(store=one.store)
    assert one.restock(["milk", "novelty"], []) == {"milk", "novelty"}
    other.refresh(NOW)
    for each in (one, other):
        assert "milk" not in ids(ask(each, items=("tea",), k=9))
    assert one.restock([], ["milk"]) == {"novelty"}
    other.refresh(NOW)
    assert "milk" in ids(ask(other, items=("tea",), k=9))


def test_integer_ids_are_text_outside():
    log = SessionLog.from_lists([[[1, 2], [1, 2]], [[3, 2]]])
    one = Engine(Arms({"main": (prepared(create("markov").fit(log), gap=GAP), 1.0)}, now=NOW), MemoryStore())
    answer = one.recommend(Question(items=("1",), k=3), NOW)
    assert answer.items[0].item == "2"
    assert {x.item for x in answer.items} == {"2", "3"}
    assert ids(one.recommend(Question(items=("01", "x"), k=3), NOW), "model") == []


def test_similar_items():
    one = engine()
    found = one.similar("tea", 3, NOW)
    assert (found.title, ids(found)) == ("Green tea", ["milk"])
    with pytest.raises(UnknownNameError, match="The model of the arm 'main' knows no item 'teaa'"):
        one.similar("teaa", 3, NOW)


# -- what fails ---------------------------------------------------------------------------------


def test_a_store_that_fails_degrades_the_answer_and_recovers():
    one = engine()
    one.record([click("tea")], NOW).result()
    one.store.broken = True
    answer = ask(one, event=click("coffee", at=-1))
    assert answer.degraded == ("store",)
    assert answer.recorded is None
    assert ids(answer)[0] == "sugar", "the event of the question still counts"
    one.store.broken = False
    assert ask(one).degraded == ()
    assert ids(ask(one))[0] == "milk"


def test_an_event_that_cannot_be_made_durable_is_said_to_be_missing():
    class Late(MemoryStore):
        def submit(self, events, now):
            done = super().submit([], now)
            failed = type(done)()
            failed.set_exception(StoreError("the disk is full"))
            return failed

    answer = ask(engine(store=Late()), event=click("tea"))
    assert (answer.degraded, answer.recorded) == (("store",), None)
    assert ids(answer)[0] == "milk"


class Failing(Recommender):
    name = "failing"
    settings_class = create("popular").settings_class
    fails = False

    def _fit(self, log, runtime):
        self.counts_ = np.bincount(log.items, minlength=log.n_items)

    def _score(self, histories, asked_at):
        if self.fails:
            raise ZeroDivisionError("a fault of the model")
        return create("popular").fit(LOG)._score(histories, asked_at)


def test_a_model_that_fails_is_replaced_by_what_many_want(caplog):
    model = Failing().fit(LOG)
    one = engine(prepared(model, gap=GAP))
    one.record([click("soap", "bob")], NOW).result()
    one.refresh(NOW)
    model.fails = True
    answer = ask(one, explain=True, items=("tea",))
    assert answer.degraded == ("model",)
    assert ids(answer)[0] == "soap"
    assert "failing" in caplog.text
    assert "ann" not in caplog.text


# -- the chain ----------------------------------------------------------------------------------


def chained(first="markov", second="vsknn", counts=None):
    arms = {"main": (served(first), 1.0), "second": (served(second, "s1"), 0.0)}
    return Engine(Arms(arms, now=NOW, roles={"second": "fallback"}), Broken())


def test_a_short_list_is_filled_by_the_fallback_before_anything_else():
    one = chained()
    assert one.chain.order == ("model", "fallback", "recent", "usual", "any")
    assert engine().chain.order == ("model", "recent", "usual", "any")
    one.record([click("soap", "bob")], NOW).result()
    one.refresh(NOW)
    expected = next(iter(create("vsknn").fit(LOG).recommend(SessionLog.from_lists([[["tea"]]]), exclude="session")))
    answer = ask(one, items=("tea",), k=4)
    assert [x.source for x in answer.items] == ["model", "fallback", "recent", "any"]
    assert ids(answer) == ["milk", expected[1], "soap", "coffee"]
    assert (answer.arm, answer.version, answer.degraded) == ("main", "v1", ())
    assert ids(ask(one, items=("tea",), k=1)) == ["milk"], "a full list needs nobody else"


def test_the_fallback_keeps_all_limits():
    one = chained()
    full = ids(ask(one, items=("tea", "milk"), k=9), "fallback")
    assert full == ["sugar"] or "sugar" in ids(ask(one, items=("tea", "milk"), k=9), "model")
    for more in ({"deny": ("sugar",)}, {"where": {"kind": ("wash",)}}, {"allow": ("soap",)}):
        assert "sugar" not in ids(ask(one, items=("tea", "milk"), k=9, **more))
    one.restock(["sugar"], [])
    assert "sugar" not in ids(ask(one, items=("tea", "milk"), k=9))


def test_a_fallback_that_fails_is_named_and_the_chain_goes_on():
    model = Failing().fit(LOG)
    arms = {"main": (served("markov"), 1.0), "second": (prepared(model, gap=GAP), 0.0)}
    one = Engine(Arms(arms, now=NOW, roles={"second": "fallback"}), Broken())
    model.fails = True
    answer = ask(one, items=("soap",), k=3)
    assert answer.degraded == ("fallback",)
    assert len(ids(answer, "any")) == 3


def test_a_model_that_fails_is_replaced_by_the_fallback():
    model = Failing().fit(LOG)
    arms = {"main": (prepared(model, gap=GAP), 1.0), "second": (served("vsknn"), 0.0)}
    one = Engine(Arms(arms, now=NOW, roles={"second": "fallback"}), Broken())
    model.fails = True
    answer = ask(one, items=("tea",), k=1)
    assert (answer.degraded, [x.source for x in answer.items]) == (("model",), ["fallback"])


def test_whoever_is_unknown_gets_what_was_wanted_before_anything():
    counts = np.array([3, 9, 1, 0, 9])  # coffee, milk, soap, sugar, tea
    one = engine(prepared(create("vsknn").fit(LOG), gap=GAP, popularity=counts))
    answer = ask(one, visitor="new", k=5)
    assert [x.source for x in answer.items] == ["usual"] * 4 + ["any"]
    assert set(ids(answer)[:2]) == {"milk", "tea"}
    assert ids(answer)[2:] == ["coffee", "soap", "sugar"]


def test_roles_of_arms():
    with pytest.raises(ConfigError, match="At least one arm must have a weight above 0"):
        Arms({"a": (served(), 0.0)}, now=NOW, roles={"a": "fallback"})
    with pytest.raises(ConfigError, match="The arm 'a' is there to fill lists: its weight must be 0"):
        Arms({"a": (served(), 1.0)}, now=NOW, roles={"a": "fallback"})
    arms = Arms({"a": (served(), 1.0), "b": (served("popular"), 0.0)}, now=NOW)
    assert arms.fallback is None
    arms.weigh({}, {"b": "fallback"})
    assert arms.fallback.name == "b"
    with pytest.raises(ConfigError, match="The arm 'b' is there to fill lists: its weight must be 0"):
        arms.weigh({"b": 1})
    with pytest.raises(ConfigError, match="The arm 'b' is the fallback already"):
        arms.load("c", "x", lambda: served("popular", "v2"), now=NOW, role="fallback")
    assert arms.refused[-1].place == "x"
    with pytest.raises(ConfigError, match="The arm 'a' is there to answer; load it under another name"):
        arms.load("a", "x", lambda: served("popular", "v2"), now=NOW, role="fallback")
    arms.load("b", "x", lambda: served("popular", "v2"), now=NOW, role="fallback")
    arms.load("b", "x", lambda: served("popular", "v3"), now=NOW)
    assert (arms.fallback.served.version, arms.fallback.role) == ("v3", "fallback")
    assert arms.roll_back("b", now=NOW).role == "fallback"
    arms.load("c", "x", lambda: served("popular", "v2"), now=NOW)
    with pytest.raises(ConfigError, match="There can be one fallback, got 'b' and 'c'"):
        arms.weigh({}, {"c": "fallback"})
    arms.weigh({"b": 1}, {"b": "answer", "c": "fallback"})
    assert arms.fallback.name == "c"
    with pytest.raises(UnknownNameError, match="There is no arm 'd'"):
        arms.weigh({}, {"d": "fallback"})


# -- consent and what is shown ------------------------------------------------------------------


def test_without_consent_nothing_is_read_or_stored():
    one = engine()
    one.record([click("tea")], NOW).result()
    before = one.store.health()
    answer = ask(one, consent=False, event=click("coffee", at=-5), item="milk")
    assert answer.recorded.status == "refused"
    assert "without consent" in answer.recorded.reason
    assert ids(answer, "model") == ["sugar"] or ids(answer)[0] in ("sugar", "tea")
    assert one.store.health() == before
    assert [e.item for e in one.store.record("ann", NOW).events] == ["tea"]


def test_what_was_shown_is_recorded_with_its_request_arm_and_order():
    one = engine()
    answer = ask(one, items=("tea",))
    ask(one, shown=False)
    ask(one, visitor=None)
    ((_, shown),) = one.store.shown()
    assert (shown.request, shown.visitor, shown.arm, shown.version) == (answer.request, "ann", "main", "v1")
    assert list(shown.items) == ids(answer)
    assert answer.request.startswith("main.")


# -- arms ---------------------------------------------------------------------------------------


def test_visitors_keep_their_arm_and_arms_have_their_shares():
    arms = Arms({"a": (served(), 3.0), "b": (served("popular"), 1.0), "c": (served(), 0.0)}, now=NOW)
    found = [arms.of(f"visitor {i}").name for i in range(4000)]
    assert found == [arms.of(f"visitor {i}").name for i in range(4000)]
    assert 0.72 < found.count("a") / 4000 < 0.78
    assert found.count("c") == 0
    arms.weigh({"a": 0, "c": 0})
    assert {arms.of(f"visitor {i}").name for i in range(100)} == {"b"}
    with pytest.raises(ConfigError, match="At least one arm must have a weight above 0"):
        arms.weigh({"b": 0})
    with pytest.raises(ConfigError, match="must be a number from 0, got -1 for 'b'"):
        arms.weigh({"b": -1})
    with pytest.raises(UnknownNameError, match=r"There is no arm 'd'.* Arms: a, b, c"):
        arms.weigh({"d": 1})
    with pytest.raises(ConfigError, match="needs at least one model"):
        Arms({}, now=NOW)


def test_an_arm_can_be_asked_for():
    one = engine(served("popular"), served("markov"))
    for arm, model in (("arm0", "popular"), ("arm1", "markov")):
        answer = ask(one, arm=arm)
        assert (answer.arm, answer.model) == (arm, model)
    with pytest.raises(UnknownNameError, match=r"There is no arm 'arm2'\. Did you mean"):
        ask(one, arm="arm2")


def test_a_swap_and_the_way_back():
    one = engine()
    arms = one.arms
    arms.load("main", "x", lambda: served("popular", "v2"), now=NOW + 5)
    assert (ask(one).version, arms.named("main").loaded_at) == ("v2", NOW + 5)
    arms.load("main", "x", lambda: served("popular", "v2"), now=NOW + 6)
    assert [p.version for p in arms.named("main").previous] == ["v1"], "the same version is no swap"
    arms.load("main", "x", lambda: served("popular", "v3"), now=NOW + 7)
    arms.load("main", "x", lambda: served("popular", "v4"), now=NOW + 8)
    assert [p.version for p in arms.named("main").previous] == ["v3", "v2"]
    assert arms.roll_back("main", now=NOW + 9).served.version == "v3"
    arms.roll_back("main", now=NOW + 9)
    with pytest.raises(ConfigError, match="The arm 'main' has had no other model; load one"):
        arms.roll_back("main", now=NOW + 9)
    arms.load("new", "x", lambda: served("popular", "v9"), now=NOW)
    assert arms.named("new").weight == 0


# -- artifacts ----------------------------------------------------------------------------------


def saved(folder, name="markov", **settings):
    model = create(name, **settings).fit(LOG)
    model.save(folder)
    write_golden(model, folder)
    return folder


def test_an_artifact_is_served_if_its_golden_requests_are_answered(tmp_path):
    one = serve(saved(tmp_path / "m"), gap=GAP)
    assert one.asked == 5
    assert len(one.version) == 12
    assert one.version == serve(tmp_path / "m", gap=GAP).version


def test_a_damaged_artifact_is_refused_and_the_old_model_goes_on(tmp_path):
    one = engine()
    place = saved(tmp_path / "m")
    (place / "arrays.safetensors").write_bytes(b"no arrays")
    with pytest.raises(ArtifactError, match="damaged"):
        one.arms.load("main", str(place), lambda: serve(place, gap=GAP), now=NOW)
    (refusal,) = one.arms.refused
    assert (refusal.place, refusal.at) == (str(place), NOW)
    assert ask(one).version == "v1"


def test_a_model_that_answers_otherwise_than_when_saved_is_refused(tmp_path):
    place = saved(tmp_path / "m")
    (place / "golden.json").write_text('[{"items": ["tea"], "list": ["soap", "coffee"]}]')
    with pytest.raises(
        ArtifactError, match=r"answers otherwise than when it was saved: of 2 items .* 0 were found again"
    ):
        serve(place, gap=GAP)
    (place / "golden.json").write_text('[{"items": ["tea"]}]')
    with pytest.raises(ArtifactError, match=r"golden\.json is damaged: KeyError"):
        serve(place, gap=GAP)


def test_what_was_wanted_lies_beside_the_model(tmp_path):
    log = SessionLog.from_lists([[["tea", "milk", "tea", "unheard of"]]])
    place = saved(tmp_path / "m", "vsknn")
    assert serve(place, gap=GAP).usual == ()
    write_popularity(place, log, LOG.vocabulary)
    assert serve(place, gap=GAP).usual == ("tea", "milk")
    np.save(place / "popularity.npy", np.zeros(3, np.int64))
    with pytest.raises(ArtifactError, match=r"popularity\.npy is damaged: it is not of the 5 items"):
        serve(place, gap=GAP)
    (place / "popularity.npy").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=r"popularity\.npy is damaged"):
        serve(place, gap=GAP)


def test_a_model_that_fails_when_asked_is_refused():
    model = Failing().fit(LOG)
    model._score = lambda histories, asked_at: create("popular").fit(LOG.take([2]))._score(histories, asked_at)
    model.vocabulary_ = LOG.vocabulary.extend(["more"])
    with pytest.raises(ArtifactError, match="fails when asked"):
        prepared(model, gap=GAP, place="runs/x")


# -- reasons ------------------------------------------------------------------------------------


def test_reasons_name_the_event_that_did_it():
    one = engine(served("vsknn"))
    one.record([click("soap", at=-3000), click("tea", at=-2000), click("unheard of", at=-1000)], NOW).result()
    answer = ask(one, explain=True, k=3)
    assert [(x.item, x.known, x.session) for x in answer.history] == [
        ("soap", True, 0),
        ("tea", True, 0),
        ("unheard of", False, 0),
    ]
    milk = next(x for x in answer.items if x.item == "milk")
    assert milk.because[0].event == 1
    assert milk.because[0].weight == 1.0
    assert milk.because[0].place is None
    assert answer.history[1].weight > answer.history[0].weight == 0
    assert sum(x.weight for x in answer.history) <= 1.001


def test_an_answer_to_nobody_needs_no_reason():
    assert ask(engine(), visitor=None, explain=True).history == ()


# -- what many want -----------------------------------------------------------------------------


def test_recent_counts_fade():
    store, recent = MemoryStore(Rules()), Recent(half_life=1000)
    store.append([click("old", at=-2500, name=f"o{i}") for i in range(5)] + [click("new", at=0)], NOW)
    assert recent.follow(store, NOW) is False
    assert recent.items == ["new", "old"], "five of them, two and a half half-lives old, are less than one"
    store.append([click("old", at=-1, name="again")], NOW)
    recent.follow(store, NOW)
    assert recent.items == ["old", "new"]


def test_one_question_that_a_model_fails_at_spoils_no_other():
    """Of questions that came together each is asked alone where together they fail."""

    class Choosy(type(served().model)):
        def _score(self, histories, asked_at):
            if any(code == self.vocabulary_.find("soap") for code in histories.items):
                raise ZeroDivisionError("no soap")
            return super()._score(histories, asked_at)

    one = served()
    one.model.__class__ = Choosy
    engine_ = engine(one)
    questions = [(Question(items=(item,), k=2, shown=False), NOW) for item in ("tea", "soap", "coffee")]
    questions.append((Question(where={"colour": ("red",)}), NOW))
    tea, soap, coffee, wrong = engine_.ask_all(questions)
    assert isinstance(wrong, DataError)
    assert soap.answer.degraded == ("model",)
    assert len(soap.answer.items) == 2
    for asked, item in ((tea, "tea"), (coffee, "coffee")):
        assert asked.answer.degraded == ()
        alone = engine_.ask(Question(items=(item,), k=2, shown=False), NOW).answer
        assert [(x.item, x.source) for x in asked.answer.items] == [(x.item, x.source) for x in alone.items]
