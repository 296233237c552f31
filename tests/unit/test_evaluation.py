from collections import Counter

import numpy as np
import pytest

from nextsession import create
from nextsession.config import Settings
from nextsession.data.cases import Cases
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError, ConfigError, DataError, ModelError
from nextsession.evaluation import EvaluationSettings, Report, evaluate
from nextsession.metrics import RANK_METRICS, gini
from nextsession.models.popular import Popular
from nextsession.recommender import Recommender
from nextsession.scores import DenseScores
from nextsession.splits import SplitSettings, split

QUICK = EvaluationSettings(k=(2, 5), bootstrap=0)


class Nothing(Settings):
    pass


class Echo(Recommender[Nothing]):
    """Scores depend on the last item and on how often each was wanted; many are equal."""

    name = "echo"

    def _fit(self, log, runtime):
        self.counts_ = np.bincount(log.items, minlength=log.n_items).astype(np.float32)

    def _score(self, histories, asked_at):
        matrix = np.tile(self.counts_ // 2, (len(histories), 1))
        for b in range(len(histories)):
            a, z = histories.event_offsets[b : b + 2]
            if z > a:
                matrix[b] += (np.arange(histories.n_items) + histories.items[z - 1]) % 3
        return DenseScores(matrix)


class Broken(Echo):
    def _score(self, histories, asked_at):
        matrix = super()._score(histories, asked_at).values
        matrix[:, 0] = np.nan
        return DenseScores(matrix)


class Constant(Echo):
    def _score(self, histories, asked_at):
        return DenseScores(np.zeros((len(histories), histories.n_items), np.float32))


def random_log(seed: int = 0, users: int = 30, items: int = 12) -> SessionLog:
    rng = np.random.default_rng(seed)
    lists = [
        [[f"i{min(items - 1, int(x)):02}" for x in rng.exponential(3, rng.integers(1, 5))] for _ in range(4)]
        for _ in range(users)
    ]
    log = SessionLog.from_lists(lists)
    labels = (rng.random(log.n_events) < 0.7).astype(np.int8)
    colours = ItemFeature.of([["red"] if i % 2 else ["blue"] for i in range(log.n_items)])
    return SessionLog(
        log.items, log.times, log.session_offsets, log.user_offsets, log.vocabulary, labels,
        item_table=ItemTable({"colour": colours}),
    )  # fmt: skip


def report_of(model=None, *, settings: EvaluationSettings = QUICK, seed: int = 0, **values) -> Report:
    found = split(random_log(seed), SplitSettings(**({"protocol": "leave-one-session-out"} | values)))
    model = (model or Echo()).fit(found.train)
    return evaluate(model, found.test, settings, train=found.train)


# -- against a slow twin ------------------------------------------------------------------------


def answered_slowly(model, questions, exclude):
    """Rank every question alone: scores of all items, best first, and the places of the targets."""
    for cases in questions():
        ids = cases.histories.vocabulary.ids
        for q in range(len(cases)):
            history = cases.histories.take([q])
            scores = dict(
                zip(
                    model.vocabulary_.ids.tolist(),
                    model.scores(history, asked_at=cases.asked_at[q : q + 1]).dense()[0].tolist(),
                    strict=True,
                )
            )
            wanted_before = ids[history.items[history.labels == 1]].tolist()
            if exclude == "history":
                scores = {item: s for item, s in scores.items() if item not in wanted_before}
            targets = ids[cases.targets[cases.target_offsets[q] : cases.target_offsets[q + 1]]].tolist()
            ranks = []
            for target in targets:
                if target in scores:
                    above = sum(s > scores[target] for s in scores.values())
                    same = sum(s == scores[target] for s in scores.values())
                    beside = [t for t in targets if scores.get(t) == scores[target]]
                    ranks.append(above + (beside.index(target) + 1) * (same + 1) / (len(beside) + 1))
            yield sorted(ranks), len(targets)


@pytest.mark.parametrize("exclude", ["nothing", "history"])
@pytest.mark.parametrize("protocol", ["leave-one-session-out", "leave-one-item-out"])
def test_every_metric_agrees_with_questions_answered_one_by_one(exclude, protocol):
    settings = EvaluationSettings(metrics=tuple(RANK_METRICS), k=(1, 3, 10), exclude=exclude, bootstrap=0)
    found = split(random_log(), SplitSettings(protocol=protocol))
    model = Echo().fit(found.train)
    report = evaluate(model, found.test, settings)
    sums: Counter = Counter()
    questions = list(answered_slowly(model, found.test, exclude))
    for ranks, p in questions:
        for k in settings.k:
            hits = [r for r in ranks if r <= k]
            ideal = sum(1 / np.log2(i + 2) for i in range(min(k, p)))
            sums[f"recall@{k}"] += len(hits) / p
            sums[f"truncated_recall@{k}"] += len(hits) / min(k, p)
            sums[f"precision@{k}"] += len(hits) / k
            sums[f"hitrate@{k}"] += bool(hits)
            sums[f"f1@{k}"] += 2 * len(hits) / (k + p)
            sums[f"mrr@{k}"] += 1 / hits[0] if hits else 0
            sums[f"ndcg@{k}"] += sum(1 / np.log2(r + 1) for r in hits) / ideal
            sums[f"map@{k}"] += sum((i + 1) / r for i, r in enumerate(hits)) / min(k, p)
    assert len(report) == len(questions)
    assert {name for name in report.metrics if not name.startswith("slate")} == set(sums)
    for name, total in sums.items():
        assert report.metrics[name].mean == pytest.approx(total / len(questions)), name


def test_lists_are_measured_as_they_are_given():
    settings = EvaluationSettings(
        metrics=("coverage", "gini", "popularity", "novelty", "diversity"), k=(1, 4), bootstrap=0
    )
    found = split(random_log(), SplitSettings(protocol="leave-one-session-out"))
    model = Echo().fit(found.train)
    report = evaluate(model, found.test, settings, train=found.train)
    wanted = found.train.positives()
    counts = np.bincount(wanted.items, minlength=wanted.n_items)
    colours = [row[0] for row in found.train.item_table.features["colour"].rows()]
    lists = [row for cases in found.test() for row in model.recommend(cases.histories, 4).items.tolist()]
    for k in (1, 4):
        shown = Counter(item for row in lists for item in row[:k])
        assert report.metrics[f"coverage@{k}"].mean == pytest.approx(len(shown) / wanted.n_items)
        lists_of_each = np.array([shown[i] for i in range(wanted.n_items)])
        assert report.metrics[f"gini@{k}"].mean == pytest.approx(gini(lists_of_each))
        popularity = [np.mean([counts[i] / counts.max() for i in row[:k]]) for row in lists]
        assert report.values(f"popularity@{k}").tolist() == pytest.approx(popularity, rel=1e-6)
        novelty = [np.mean([-np.log2((counts[i] + 1) / (counts + 1).sum()) for i in row[:k]]) for row in lists]
        assert report.values(f"novelty@{k}").tolist() == pytest.approx(novelty, rel=1e-6)
    pairs = [np.mean([colours[a] != colours[b] for a in row for b in row if a != b]) for row in lists]
    assert report.values("diversity@4").tolist() == pytest.approx(pairs)
    order = np.argsort(-counts, kind="stable")
    before = (np.cumsum(counts[order]) - counts[order]) / counts.sum()
    group = {int(item): int(10 * share) for item, share in zip(order, before, strict=True)}
    places = Counter(group[item] for row in lists for item in row)
    assert report.calibration["deciles"] == pytest.approx([places[g] / places.total() for g in range(10)])


# -- rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ties", "hit"), [("optimistic", 1.0), ("median", 0.0), ("conservative", 0.0)])
def test_a_constant_model_shines_only_by_optimism(ties, hit):
    report = report_of(
        Constant(),
        protocol="leave-one-item-out",
        settings=EvaluationSettings(metrics=("hitrate",), k=(2,), ties=ties, bootstrap=0),
    )
    assert report.metrics["hitrate@2"].mean == hit


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ModelError, match="NaN"):
        report_of(Broken())


def test_unknown_targets_are_misses_and_reported():
    log = SessionLog.from_lists([[["a", "b"], ["a", "new"]], [["a", "b"], ["b"]]])
    found = split(log, SplitSettings(protocol="leave-one-session-out"))
    settings = EvaluationSettings(metrics=("recall",), k=(5,), bootstrap=0)
    report = evaluate(Popular().fit(found.train), found.test, settings, train=found.train)
    assert report.metrics["recall@5"].mean == pytest.approx((0.5 + 1) / 2)
    assert report.warm["recall@5"] == 1
    assert report.shares == {"unknown_share": pytest.approx(1 / 3), "barred_share": 0}
    known = {row["group"]: (row["n"], row["metrics"]["recall@5"]) for row in report.breakdown["known"]}
    assert known == {"known": (2, 1.0), "unknown": (1, 0.0)}


def test_barred_targets_are_misses_and_reported():
    log = SessionLog.from_lists([[["a", "b"], ["a"]], [["b", "c"], ["a"]]])
    found = split(log, SplitSettings(protocol="leave-one-session-out"))
    settings = EvaluationSettings(metrics=("recall",), k=(5,), exclude="history", bootstrap=0)
    report = evaluate(Popular().fit(found.train), found.test, settings)
    assert report.values("recall@5").tolist() == [0, 1]
    assert report.shares == {"unknown_share": 0, "barred_share": 0.5}


def test_questions_without_targets_are_skipped_and_counted():
    log = SessionLog.from_lists([[["a"]], [["b"]], [["a"]]])
    cases = Cases(log, log.last_times, np.array([1, 0], np.int32), np.array([0, 1, 1, 2]), np.arange(3))
    report = evaluate(Popular().fit(log), lambda: iter([cases]), QUICK)
    assert (len(report), report.facts["skipped"]) == (2, 1)
    assert report.questions["groups"].tolist() == [0, 2]
    none = Cases(log, log.last_times, np.zeros(0, np.int32), np.zeros(4, np.int64), np.arange(3))
    with pytest.raises(DataError, match="no question with a target among 3"):
        evaluate(Popular().fit(log), lambda: iter([none]), QUICK)


def test_what_was_shown_is_ranked_by_itself():
    log = SessionLog.from_lists([[["a", "a", "a", "b", "b", "c"]]])
    question = Cases(
        log, log.last_times + 1, np.array([1], np.int32), np.array([0, 1]), np.array([0]),
        ignored=np.array([0, 2], np.int32), ignored_offsets=np.array([0, 2]),
    )  # fmt: skip
    report = evaluate(Popular().fit(log), lambda: iter([question]), QUICK)
    found = {name: report.metrics[name].mean for name in report.metrics if name.startswith("slate")}
    assert found == pytest.approx(
        {"slate_auc": 0.5, "slate_mrr": 0.5, "slate_ndcg@5": 1 / np.log2(3), "slate_ndcg@10": 1 / np.log2(3)}
    )
    without = evaluate(Popular().fit(log), lambda: iter([question]), QUICK.model_copy(update={"slates": False}))
    assert not [name for name in without.metrics if name.startswith("slate")]


def test_ignored_items_of_the_asked_session_change_no_rank():
    found = split(random_log(), SplitSettings(protocol="leave-one-session-out"))
    model = Echo().fit(found.train)

    def blind():
        for c in found.test():
            yield Cases(c.histories, c.asked_at, c.targets, c.target_offsets, c.groups, positions=c.positions)

    seeing, other = evaluate(model, found.test, QUICK), evaluate(model, blind, QUICK)
    assert np.array_equal(seeing.ranks.values, other.ranks.values)


# -- rolling ------------------------------------------------------------------------------------


def test_a_model_that_learns_on_is_told_the_news_and_the_caller_keeps_his():
    values = {"test": 3 * 3_600_000, "step": "1h", "protocol": "rolling"}
    found = split(random_log(), SplitSettings(**values))
    model = Popular().fit(found.train)
    before = model.counts_.copy()
    rolling = evaluate(model, found.test, QUICK, train=found.train)
    assert np.array_equal(model.counts_, before)
    assert rolling.facts["updates"]

    slow, wanted = Popular().fit(found.train), []
    for cases in found.test():
        if cases.news is not None:
            slow.update(cases.news)
        wanted.append(slow.rank(cases).counts.greater)
    assert rolling.targets["greater"].tolist() == np.concatenate(wanted).tolist()

    still = evaluate(Echo().fit(found.train), found.test, QUICK, train=found.train)
    assert not still.facts["updates"]


def test_what_was_held_back_is_told_to_those_alone_who_look_back():
    found = split(random_log(), SplitSettings(protocol="leave-one-session-out", counted="everything"))
    plain = split(random_log(), SplitSettings(protocol="leave-one-session-out"))
    counts = Popular().fit(found.train)
    same = [evaluate(counts, some.test, QUICK, train=some.train) for some in (found, plain)]
    assert same[0].ranks.values.tolist() == same[1].ranks.values.tolist()
    assert not same[0].facts["updates"]

    model = create("recent", window="12h").fit(found.train)
    told = evaluate(model, found.test, QUICK, train=found.train)
    assert told.facts["updates"]
    whole, wanted = create("recent", window="12h").fit(random_log()), []
    for cases in found.test():
        wanted.append(whole.rank(cases).counts.greater)
    assert told.targets["greater"].tolist() == np.concatenate(wanted).tolist()
    untold = evaluate(model, plain.test, QUICK, train=plain.train)
    assert untold.targets["greater"].tolist() != told.targets["greater"].tolist()


# -- tables -------------------------------------------------------------------------------------


def test_groups_of_questions_hold_every_question_once():
    report = report_of()
    for table in ("session_length", "history_length", "history_sessions"):
        rows = report.breakdown[table]
        assert sum(row["n"] for row in rows) == len(report)
        mean = sum(row["n"] * row["metrics"]["ndcg@5"] for row in rows) / len(report)
        assert mean == pytest.approx(report.metrics["ndcg@5"].mean)
    for table in ("item_popularity", "repeat", "known"):
        assert sum(row["n"] for row in report.breakdown[table]) == len(report.targets["greater"])


def test_groups_of_popularity_hold_a_tenth_of_the_training_events_each():
    log = SessionLog.from_lists([[[f"i{i:03}" for i in range(100)] * 3]])
    model = Popular().fit(log)
    cases = Cases(log, log.last_times + 1, np.arange(100, dtype=np.int32), np.array([0, 100]), np.array([0]))
    report = evaluate(model, lambda: iter([cases]), QUICK, train=log)
    assert [row["n"] for row in report.breakdown["item_popularity"]] == [10] * 10
    assert report.calibration["targets"] == pytest.approx([0.1] * 10)


def test_items_without_a_training_event_are_new_though_the_vocabulary_has_them():
    log = SessionLog.from_lists([[["a", "b"], ["c"]], [["a"], ["b"]]])
    found = split(log, SplitSettings(protocol="leave-one-session-out", form="paper-like"))
    report = evaluate(Popular().fit(found.train), found.test, QUICK, train=found.train)
    assert report.shares["unknown_share"] == 0
    assert {row["group"]: row["n"] for row in report.breakdown["item_popularity"]} == {"7": 1, "new": 1}


def test_text_and_json_say_by_which_rules():
    report = report_of()
    text = report.table()
    assert "all items are candidates, exclude nothing, ties median" in text
    assert "ndcg@5" in text
    content = report.to_dict()
    assert content["questions"]["n"] == len(report)
    assert set(content["metrics"]["ndcg@5"]) == {"mean", "low", "high"}


def test_reports_are_kept_whole(tmp_path):
    report = report_of(settings=QUICK.model_copy(update={"bootstrap": 20}))
    report.save(tmp_path / "report.npz")
    again = Report.load(tmp_path / "report.npz")
    assert again.to_dict() == report.to_dict()
    assert again.compare(report)["ndcg@5"].mean == 0
    (tmp_path / "broken.npz").write_bytes((tmp_path / "report.npz").read_bytes()[:200])
    for name in ("broken.npz", "missing.npz"):
        with pytest.raises(ArtifactError, match=f"{name} is not a saved report"):
            Report.load(tmp_path / name)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"no metric 'ndgc'. Did you mean 'ndcg'"):
        EvaluationSettings.read({"metrics": ["ndgc"]}, "evaluation")
    with pytest.raises(ConfigError, match="one or more lengths of at least 1"):
        EvaluationSettings.read({"k": [0]}, "evaluation")
    log = SessionLog.from_lists([[["a"], ["b"]]])
    with pytest.raises(ConfigError, match="'diversity' compares side features"):
        evaluate(Popular().fit(log), lambda: iter([]), EvaluationSettings(metrics=("diversity",)), train=log)
    with pytest.raises(DataError, match=r"'map@3' was not measured; measured are ndcg@2"):
        report_of().values("map@3")


def test_rank_metrics_alone_ask_for_no_lists():
    assert EvaluationSettings(metrics=("ndcg",)).list_length == 0
    assert EvaluationSettings(metrics=("ndcg", "coverage"), k=(5, 20)).list_length == 20


# -- comparing ----------------------------------------------------------------------------------


def test_differences_are_paired():
    settings = EvaluationSettings(k=(2,), metrics=("ndcg",), bootstrap=200)
    echo, popular = report_of(settings=settings), report_of(Popular(), settings=settings)
    found = echo.compare(popular)["ndcg@2"]
    assert found.mean == pytest.approx(echo.metrics["ndcg@2"].mean - popular.metrics["ndcg@2"].mean)
    assert found.low <= found.mean <= found.high
    back = popular.compare(echo)["ndcg@2"]
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    assert set(vars(echo.compare(echo)["ndcg@2"]).values()) == {0.0}


def test_reports_of_other_questions_or_rules_are_not_compared():
    with pytest.raises(DataError, match="asked different questions"):
        report_of().compare(report_of(seed=1))
    for change in ({"k": (3,)}, {"ties": "optimistic"}, {"exclude": "history"}):
        other = report_of(settings=QUICK.model_copy(update=change))
        with pytest.raises(DataError, match=f"{next(iter(change))} must be the same"):
            report_of().compare(other)


def test_vocabularies_of_model_and_questions_may_differ():
    log = SessionLog.from_lists([[["b", "c", "c"]]])
    asked = SessionLog.from_lists([[["a", "c"]]], vocabulary=Vocabulary(np.array(["a", "c", "b"], dtype=object)))
    cases = Cases(asked, asked.last_times, np.array([2, 0], np.int32), offsets_of([2]), np.array([0]))
    report = evaluate(Popular().fit(log), lambda: iter([cases]), QUICK, train=log)
    assert report.targets["greater"].tolist() == [1, 2]
    assert report.targets["known"].tolist() == [True, False]
    assert report.targets["repeat"].tolist() == [False, True]
    assert report.targets["popularity"].tolist() == [6, -1]
