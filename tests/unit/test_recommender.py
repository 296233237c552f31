"""What the base class of all models does for them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextsession import Cases, Runtime, SessionLog, Vocabulary, create
from nextsession.config import Settings
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.log import offsets_of
from nextsession.errors import ConfigError, DataError, ModelError, NotFittedError
from nextsession.models.popular import Popular, PopularSettings
from nextsession.recommender import Recommendations, Recommender
from nextsession.scores import DenseScores, top_slowly
from nextsession.testing.strategies import logs

LOG = SessionLog.from_lists([[["a", "b"], ["a", "c"]], [["a", "b", "d"]]])


class NoSettings(Settings):
    """None."""


class Given(Recommender[NoSettings]):
    """Scores what it is told to."""

    name = "given"

    def _fit(self, log, runtime):
        self.table_ = np.tile(np.arange(log.n_items, dtype=np.float32), (64, 1))

    def _score(self, histories, asked_at):
        self.seen = histories, asked_at
        return DenseScores(self.table_[: len(histories)].copy())


@pytest.fixture
def model():
    return Given().fit(LOG)


def test_settings_are_found_in_the_brackets():
    assert Given.settings_class is NoSettings
    assert Popular.settings_class is PopularSettings
    assert repr(Popular()) == "Popular()"
    assert repr(Popular(PopularSettings(count="sessions"))) == "Popular(count='sessions')"


def test_a_subclass_may_have_other_settings():
    class More(PopularSettings):
        """One more."""

        extra: int = 1
        """More."""

    class Child(Popular):
        """Popular, with more settings."""

        settings_class = More

    assert Child(extra=3).config.extra == 3


def test_asking_too_early_says_what_to_do():
    with pytest.raises(NotFittedError, match=r"This popular has not learnt anything yet: call fit\(log\), or"):
        Popular().recommend(LOG)


@pytest.mark.parametrize("labels", [np.zeros(7, np.int8), None])
def test_a_log_without_wanted_events_is_refused(labels):
    nothing = LOG.take([]) if labels is None else replace(LOG, labels=labels)
    with pytest.raises(DataError, match="popular cannot learn from a log without a single wanted event"):
        Popular().fit(nothing)


def test_fit_remembers_when_it_ended():
    assert Popular().fit(LOG).trained_until_ == int(LOG.times.max()) + 1


def test_fit_forgets_everything_that_ends_in_an_underscore(model):
    model.more_ = 1
    assert not hasattr(model.fit(LOG), "more_")


def test_validation_is_there_while_fitting_and_gone_afterwards():
    class Looking(Given):
        """Looks at the questions it may stop early by."""

        def _fit(self, log, runtime):
            super()._fit(log, runtime)
            self.found_ = np.array([len(list(self._validation)), runtime.seed])

    model = Looking().fit(LOG, validation=iter([1, 2]), runtime=Runtime(seed=7))  # type: ignore[arg-type, list-item]
    assert model.found_.tolist() == [2, 7]
    assert not hasattr(model, "_validation")


def test_ignored_events_are_shown_only_to_those_who_read_them():
    labels = np.array([1, 0, 1, 1, 0, 1, 1], np.int8)
    log = replace(LOG, labels=labels)

    class Reading(Given):
        """Reads ignored events."""

        reads_ignored = True

    for kind, events in ((Given, 5), (Reading, 7)):
        model = kind().fit(log)
        model.recommend(log)
        assert model.seen[0].n_events == events


def test_histories_come_in_the_codes_of_the_model_and_without_an_item_table(model):
    asked = SessionLog.from_lists([[["z", "d"]]])
    table = ItemTable({"colour": ItemFeature.of([["red"], []])})
    model.recommend(replace(asked, item_table=table))
    assert model.seen[0].items.tolist() == [3]
    assert model.seen[0].item_table is None


def test_the_default_instant_is_just_after_the_last_event_known_to_the_model_or_the_history(model):
    late = model.trained_until_ + 5
    histories = SessionLog.from_lists([[["a", "b"]], [], [["c"], ["z"]]], times=[[[0, 1000]], [], [[7], [late]]])
    model.recommend(histories)
    assert model.seen[1].tolist() == [model.trained_until_, model.trained_until_, late + 1]


def test_the_instant_may_be_given_for_all_or_for_each(model):
    histories = SessionLog.from_lists([[["a"]], [["b"]]])
    model.recommend(histories, asked_at=50)
    assert model.seen[1].tolist() == [50, 50]
    model.recommend(histories, asked_at=[3, 4])
    assert model.seen[1].tolist() == [3, 4]


def test_an_instant_before_the_history_is_refused(model):
    histories = SessionLog.from_lists([[["a"]], [["b", "c"]]])
    with pytest.raises(DataError, match="Question 1 is asked at 10, before its last event at 1000"):
        model.recommend(histories, asked_at=10)


@pytest.mark.parametrize("k", [0, -1])
def test_lists_of_nothing_are_refused(model, k):
    with pytest.raises(DataError, match=f"k must be at least 1, got {k}"):
        model.recommend(LOG, k)


def test_unknown_exclusions_are_refused(model):
    with pytest.raises(DataError, match=r"exclude must be one of nothing, session, history; got 'seen'\."):
        model.recommend(LOG, exclude="seen")


def test_lists_give_ids_and_end_in_nothing(model):
    answer = model.recommend(LOG, 9, candidates=["b", "d", "unknown"])
    assert answer.items.tolist() == [[3, 1, -1, -1]] * 2
    assert answer.scores.tolist() == [[3.0, 1.0, -np.inf, -np.inf]] * 2
    assert list(answer) == [["d", "b"], ["d", "b"]]
    assert len(answer) == 2


def test_recommendations_of_integer_ids_are_integers():
    answer = Recommendations(np.array([[1, -1]], np.int32), np.zeros((1, 2), np.float32), Vocabulary([7, 9]))
    assert list(answer) == [[9]]
    assert type(next(iter(answer))[0]) is int


def test_many_questions_are_answered_in_slices(model, monkeypatch):
    monkeypatch.setattr("nextsession.recommender.BLOCK_BYTES", 4 * 4 * 3)  # three rows at a time
    instants = []
    score = Given._score
    monkeypatch.setattr(Given, "_score", lambda self, h, t: (instants.append(t.tolist()), score(self, h, t))[1])
    many = LOG.take([0, 1, 0, 1, 0, 1, 0])
    answer = model.recommend(many, 2, asked_at=np.arange(7) + 10**8, exclude="history")
    assert [[t - 10**8 for t in slice] for slice in instants] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(answer) == [["d"], ["c"], ["d"], ["c"], ["d"], ["c"], ["d"]]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4), "given scored 1 questions x 4 items; there are 2 x 4"),
        ((2, 3), "2 questions x 3 items; there are 2 x 4"),
    ],
)
def test_scores_of_the_wrong_shape_are_refused(model, shape, message):
    model._score = lambda histories, asked_at: DenseScores(np.zeros(shape, np.float32))
    for ask in (model.scores, model.recommend):
        with pytest.raises(ModelError, match=message):
            ask(LOG)


def test_scores_that_are_not_numbers_are_refused(model):
    model.table_[:, 2] = np.nan
    with pytest.raises(ModelError, match="A score is NaN; scores must be numbers, or -inf"):
        model.recommend(LOG)


def test_what_is_no_array_is_not_saved(model, tmp_path):
    model.words_ = ["a"]
    with pytest.raises(ModelError, match=r"given\.words_ is no array; say in _arrays and _restore how to keep it"):
        model.save(tmp_path / "model")


def test_a_model_that_cannot_learn_on_says_so(model):
    assert not model.can_update
    with pytest.raises(ModelError, match="given cannot learn on from later events; fit it again on the whole log"):
        model.update(LOG)


def test_a_fit_that_fails_leaves_a_model_that_has_learnt_nothing(model):
    def broken(log, runtime):
        model.half_ = np.zeros(1)
        raise RuntimeError("no")

    model._fit = broken
    with pytest.raises(RuntimeError, match="no"):
        model.fit(LOG, validation=[])
    assert not any(name.endswith("_") for name in vars(model))
    assert not hasattr(model, "_validation")
    with pytest.raises(NotFittedError):
        model.recommend(LOG)


def test_an_update_that_fails_leaves_the_model_as_it_was():
    later = SessionLog.from_lists([[["z", "a"]]], times=[[[10**9, 10**9]]])
    model = create("recent", half_life="1d").fit(LOG)
    before = model.recommend(LOG, 4)
    with pytest.raises(DataError, match="must hold times"):
        model.update(replace(later, timed=False))
    assert model.vocabulary_ is LOG.vocabulary
    assert list(model.recommend(LOG, 4)) == list(before)


def test_learning_on_appends_items():
    model = Popular().fit(LOG)
    assert model.can_update
    later = SessionLog.from_lists([[["z", "a"]]], times=[[[10**9, 10**9]]])
    model.update(later)
    assert model.vocabulary_.ids.tolist() == ["a", "b", "c", "d", "z"]
    assert model.counts_.tolist() == [4, 2, 1, 1, 1]
    assert model.trained_until_ == 10**9 + 1


def test_ignored_events_teach_nothing_later_either():
    later = SessionLog.from_lists([[["z", "a"]]], times=[[[10**9, 10**9]]])
    model = Popular().fit(LOG).update(replace(later, labels=np.array([0, 1], np.int8)))
    assert model.vocabulary_.ids.tolist() == ["a", "b", "c", "d"]
    assert model.counts_.tolist() == [4, 2, 1, 1]


def cases_of(log, draw):
    """Questions about every row: some targets, and some items that were shown and ignored."""
    codes = st.integers(0, log.n_items - 1)
    targets = draw(st.lists(st.sets(codes, max_size=3), min_size=len(log), max_size=len(log)))
    ignored = draw(st.lists(st.sets(codes, max_size=2), min_size=len(log), max_size=len(log)))
    flat = [np.array([i for row in rows for i in sorted(row)], np.int32) for rows in (targets, ignored)]
    ends = [offsets_of([len(row) for row in rows]) for rows in (targets, ignored)]
    return Cases(
        log,
        np.full(len(log), 1_800_000_000_000),
        flat[0],
        ends[0],
        np.arange(len(log)),
        ignored=flat[1],
        ignored_offsets=ends[1],
    )


@given(logs(), st.sampled_from(["nothing", "session", "history"]), st.data())
def test_rank_against_the_definition(log, exclude, data):
    ids = [f"{x}" for x in log.vocabulary.ids.tolist()]
    log = replace(log, vocabulary=Vocabulary(ids))
    known = Vocabulary([*sorted(ids)[::2], "never seen"])
    model = Given().fit(SessionLog.from_lists([[known.ids.tolist()]], vocabulary=known))
    model.table_ = np.random.default_rng(0).integers(0, 3, (64, len(known))).astype(np.float32)
    model.table_[:, -1] = -np.inf
    cases = cases_of(log, data.draw)
    ranked = model.rank(cases, exclude=exclude, k=2)
    t, i = 0, 0
    for row in range(len(log)):
        sessions = range(log.user_offsets[row], log.user_offsets[row + 1])
        sessions = {"nothing": [], "session": sessions[-1:], "history": sessions}[exclude]
        events = [e for s in sessions for e in range(log.session_offsets[s], log.session_offsets[s + 1])]
        out = {ids[log.items[e]] for e in events if log.labels[e] == 1}
        scores = model.table_[row].copy()
        open_scores = scores.copy()
        scores[[known.ids.tolist().index(x) for x in out if x in known.ids.tolist()]] = -np.inf
        assert [c for c in ranked.top.items[row].tolist() if c >= 0] == top_slowly(scores, 2)
        for target in cases.targets[cases.target_offsets[row] : cases.target_offsets[row + 1]]:
            code = known.encode([ids[target]])[0]
            assert ranked.known[t] == (code >= 0)
            assert ranked.barred[t] == (code >= 0 and ids[target] in out)
            if code >= 0 and scores[code] > -np.inf:
                assert ranked.counts.greater[t] == (scores > scores[code]).sum()
                assert ranked.counts.equal[t] == (scores == scores[code]).sum()
            else:
                assert (ranked.counts.greater[t], ranked.counts.equal[t]) == (len(known), 0)
            if len(cases.ignored):
                assert ranked.target_scores[t] == (open_scores[code] if code >= 0 else -np.inf)
            t += 1
        for shown in cases.ignored[cases.ignored_offsets[row] : cases.ignored_offsets[row + 1]]:
            code = known.encode([ids[shown]])[0]
            assert ranked.ignored_scores[i] == (open_scores[code] if code >= 0 else -np.inf)
            i += 1
    assert t == len(ranked.counts.greater) == len(ranked.known) == len(ranked.barred)
    assert i == len(ranked.ignored_scores)


def test_ranking_no_question_gives_empty_arrays(model):
    nothing = np.zeros(0, np.int64)
    ranked = model.rank(Cases(LOG.take([]), nothing, np.zeros(0, np.int32), np.zeros(1, np.int64), nothing), k=3)
    assert ranked.top.items.shape == (0, 3)
    assert len(ranked.counts.greater) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asked_at": np.zeros(1, np.int64)}, r"asked_at must have one value a question \(2\), it has 1"),
        ({"groups": np.zeros(3, np.int64)}, r"groups must have one value a question \(2\), it has 3"),
        ({"target_offsets": np.array([0, 1])}, "target_offsets must have 3 values and end at 2"),
        ({"target_offsets": np.array([0, 1, 3])}, "target_offsets must have 3 values and end at 2"),
        ({"ignored_offsets": np.array([0, 0, 1])}, "ignored_offsets must have 3 values and end at 0"),
    ],
)
def test_cases_whose_columns_disagree_are_refused(change, message):
    columns = {"asked_at": np.full(2, 10**8), "groups": np.arange(2), "target_offsets": np.array([0, 1, 2])}
    with pytest.raises(DataError, match=message):
        Cases(histories=LOG, targets=np.array([0, 1], np.int32), **(columns | change))


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ConfigError, match=r"popular: cuont: there is no such setting .* Did you mean 'count'\?"):
        create("popular", cuont=1)
