"""The study's own code: plans, estimates, the law, and an extrapolation that cannot be made afterwards."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from nextsession.errors import ConfigError, DataError
from nextsession.experiment import ModelChoice
from nextsession.study import scaling
from nextsession.study.estimates import draw
from nextsession.study.law import Law, fit
from nextsession.study.page import page
from nextsession.study.plans import ALPHAS, BEST_OF_ITEMS, METRICS, TITLES, Arm, Known, StudySettings, arms
from nextsession.study.run import read, specs
from nextsession.study.summary import Measured, Summary, rival
from nextsession.study.tables import cells, markdown

FULL = Known(timed=True, ignored=True)
TRUTH = Law(floor=0.1, a=0.2, alpha=0.5, b=0.05, beta=0.8, n0=80_000.0, w0=64.0)


class Answers:
    """Stands for a report: metrics of some questions."""

    def __init__(self, groups, **columns):
        self.questions, self.columns = {"groups": np.asarray(groups)}, columns

    def values(self, metric):
        return np.asarray(self.columns[metric], float)


# -- plans --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in TITLES if name != "scaling"])
def test_every_model_of_a_plan_can_be_made(name):
    chosen = arms(name, StudySettings(), FULL)
    for arm in chosen:
        ModelChoice.of({"name": arm.model, **arm.settings})
    names = [arm.name for arm in chosen]
    assert len(set(names)) == len(names)
    assert all(arm.against in ("", BEST_OF_ITEMS, *names) for arm in chosen)


def test_networks_of_a_table_have_the_same_size_and_budget():
    settings = StudySettings(dim=16, epochs=7, layers=2, batch_size=8)
    for arm in arms("overall", settings, FULL):
        if arm.trained:
            shared = [arm.settings[x] for x in ("dim", "epochs", "layers", "batch_size", "patience", "learning_rate")]
            assert shared == [16, 7, 2, 8, settings.patience, settings.learning_rate], arm.name


def test_rows_that_know_the_time_are_marked():
    timed = {arm.name: arm.timed for arm in arms("overall", StudySettings(), FULL)}
    assert timed["SessionRec, separate, time-aware"]
    assert timed["HSTU, time-aware"]
    assert timed["recent, 1h"]
    assert not timed["SessionRec, separate"]
    assert not timed["HSTU"]
    assert not timed["vsknn"]


def test_a_log_without_times_or_exposures_has_fewer_models():
    names = {arm.name for arm in arms("overall", StudySettings(), Known(timed=False, ignored=False))}
    assert not any("recent" in name or "time-aware" in name for name in names)
    assert "HSTU+" not in names
    assert "SASRec+, with repeats" in names
    with pytest.raises(DataError, match=r"only what was wanted\. Choose a log with exposures"):
        arms("alpha", StudySettings(), Known(timed=True, ignored=False))


def test_alphas_are_those_of_the_paper_each_beside_none():
    chosen = arms("alpha", StudySettings(), FULL)
    assert [arm.settings["alpha"] for arm in chosen] == [arm.x for arm in chosen] == list(ALPHAS)
    assert [arm.against for arm in chosen] == ["", *["0"] * (len(ALPHAS) - 1)]


def test_counters_are_learnt_once_and_networks_with_every_seed():
    chosen = [Arm("net", "sessionrec"), Arm("count", "popular", kind="counting")]
    assert [(name, spec.seed) for name, spec in specs(chosen, 3)] == [
        ("net", 0),
        ("count", 0),
        ("net", 1),
        ("net", 2),
    ]


def test_what_is_special_about_a_set_is_read_and_can_be_changed():
    request = read("overall", {"set": "globo"}, ["study.negatives=64", "split.users=100"])
    assert request.settings.negatives == 64
    assert request.settings.batch_size == 256
    assert request.experiment.split.users == 100
    assert request.experiment.filters.passes == 3
    assert request.experiment.split.validation_share == StudySettings().share
    assert read("overall", {"shop": {}}).experiment.data.shop.users == 2000


@pytest.mark.parametrize("data", ["ebnerd", "globo", "tafeng", "kuaisar", "recflow"])
@pytest.mark.parametrize("name", TITLES)
def test_every_study_can_be_asked_of_every_set(name, data):
    request = read(name, {"set": data})
    assert request.experiment.split.protocol == "leave-one-session-out"
    assert request.experiment.evaluation.k == (10, 100, 500)
    assert request.experiment.evaluation.exclude == "nothing"


def test_unknown_studies_and_settings_are_refused():
    with pytest.raises(ConfigError, match=r"There is no study 'tables'\. Studies: overall, backbones"):
        read("tables", {"shop": {}})
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        read("overall", {"shop": {}}, ["study.epoch=3"])
    for none_or_wrong in ("[]", "[0.5,2]"):
        with pytest.raises(ConfigError, match="lasting"):
            read("intent", {"shop": {}}, [f"study.lasting={none_or_wrong}"])


# -- estimates ----------------------------------------------------------------------------------


def test_means_are_over_questions_and_seeds():
    one, other = Answers([0, 0, 1], x=[1, 0, 1]), Answers([0, 0, 1], x=[0, 0, 1])
    found = draw({"net": [one, other]}, ["x"], resamples=200)
    assert found.of("net", "x").mean == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found.spread[0, 0] == pytest.approx(np.std([2 / 3, 1 / 3], ddof=1))


def test_questions_without_a_value_do_not_count():
    found = draw({"a": [Answers([0, 1, 2], x=[np.nan, 1, 0])]}, ["x"], resamples=50)
    assert found.of("a", "x").mean == 0.5


def test_differences_are_paired_over_people():
    rng = np.random.default_rng(0)
    level = rng.random(300)
    a, b = Answers(range(300), x=level + 0.01), Answers(range(300), x=level)
    difference = draw({"a": [a], "b": [b]}, ["x"], resamples=300).difference("a", "b", "x")
    assert (difference.mean, difference.low, difference.high) == pytest.approx((0.01, 0.01, 0.01))


def test_intervals_hold_the_chance_of_the_seeds():
    rng = np.random.default_rng(0)
    level = rng.random(400)
    alike = draw({"a": [Answers(range(400), x=level)] * 3}, ["x"], resamples=400).of("a", "x")
    shifted = [Answers(range(400), x=level + shift) for shift in (-0.2, 0.0, 0.2)]
    apart = draw({"a": shifted}, ["x"], resamples=400).of("a", "x")
    assert apart.mean == pytest.approx(alike.mean)
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


def test_intervals_are_those_of_a_loop():
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 20, 60)
    groups[:20] = range(20)
    values = rng.random((2, 60))
    found = draw({"a": [Answers(groups, x=v) for v in values]}, ["x"], resamples=7, seed=5)
    people, seeds = np.random.default_rng([5, 0]), np.random.default_rng([5, 1])
    drawn = [people.integers(0, 20, 20) for _ in range(7)]
    chosen = seeds.integers(0, 2, (7, 2))
    for b in range(7):
        means = []
        for s in chosen[b]:
            picked = [v for g in drawn[b] for v in values[s][groups == g]]
            means.append(np.mean(picked))
        assert found.drawn[b, 0, 0] == pytest.approx(np.mean(means))


def test_a_gain_is_the_mean_share_over_metrics():
    a, b = Answers([0, 1], x=[0.2, 0.4], y=[1, 1]), Answers([0, 1], x=[0.1, 0.2], y=[1, 1])
    assert draw({"a": [a], "b": [b]}, ["x", "y"], resamples=20).gain("a", "b", ["x", "y"]).mean == pytest.approx(0.5)


def test_the_rival_is_the_best_network_over_items_of_the_same_column():
    def answers(level):
        return [Answers([0, 1], **{m: [level, level] for m in METRICS})]

    chosen = [
        Arm("ours", "sessionrec", against=BEST_OF_ITEMS),
        Arm("weak", "gru", kind="items"),
        Arm("strong", "sasrec", kind="items"),
        Arm("timed", "hstu", {"time": "relative"}, kind="items"),
        Arm("recent", "recent", kind="counting"),
    ]
    levels = {"ours": 0.3, "weak": 0.1, "strong": 0.2, "timed": 0.9, "recent": 0.95}
    draws = draw({name: answers(level) for name, level in levels.items()}, METRICS, resamples=5)
    assert rival(chosen[0], chosen, draws) == "strong"


# -- the law ------------------------------------------------------------------------------------


def test_a_law_is_found_again_in_what_it_gives():
    events, widths = (x.ravel() for x in np.meshgrid([10e3, 20e3, 40e3, 80e3], [8.0, 16.0, 32.0, 64.0]))
    found = fit(events, widths, TRUTH.missed(events, widths))
    assert (found.floor, found.a, found.alpha) == pytest.approx((TRUTH.floor, TRUTH.a, TRUTH.alpha), rel=1e-2)
    assert (found.b, found.beta) == pytest.approx((TRUTH.b, TRUTH.beta), rel=1e-2)
    assert found.missed(320e3, 128) == pytest.approx(TRUTH.missed(320e3, 128), abs=1e-4)


def test_a_law_of_one_width_has_no_part_for_it():
    events = np.array([1e3, 2e3, 4e3, 8e3])
    found = fit(events, np.full(4, 32.0), 0.3 + 0.1 * (events / 8e3) ** -0.4)
    assert (found.floor, found.a, found.alpha, found.b) == pytest.approx((0.3, 0.1, 0.4, 0), abs=1e-3)


def test_too_few_sizes_are_refused():
    with pytest.raises(DataError, match="5 unknowns needs as many different sizes, got 4"):
        fit(np.array([1.0, 2, 4, 4]), np.array([8.0, 8, 8, 4]), np.ones(4))
    with pytest.raises(DataError, match="add steps"):
        fit(np.array([1.0, 2]), np.array([8.0, 8]), np.ones(2))


def test_every_size_may_take_as_many_steps():
    settings = StudySettings(epochs=12, patience=2, steps=4, widths=(8, 16))
    sizes, last = scaling.grid(settings)
    passes = [scaling._settings(settings, size) for size in (*sizes, last)]
    assert [(p["epochs"], p["patience"]) for p in passes] == [(96, 16), (48, 8), (24, 4), (24, 4), (12, 2)]
    assert [size.share for size in (*sizes, last)] == [1 / 8, 1 / 4, 1 / 2, 1 / 2, 1]


def test_the_interval_of_what_is_foretold_holds_it():
    settings = StudySettings(steps=5, widths=(8, 16, 32))
    sizes, last = scaling.grid(settings)
    assert (last.share, last.width) == (1.0, 32)
    assert all(cell.share <= 0.5 for cell in sizes)
    law = Law(0.1, 0.2, 0.5, 0.05, 0.8, 80e3, 32.0)
    events = np.array([cell.share * 160e3 for cell in sizes])
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(4):
        reports = {}
        for cell, n in zip(sizes, events, strict=True):
            level = 1 - float(law.missed(n, cell.width))
            reports[cell.name] = [
                Answers(range(400), hit=(rng.random(400) < level + rng.normal(0, 0.01)).astype(float)) for _ in range(3)
            ]
        draws = draw(reports, ["hit"], resamples=60)
        found = scaling.foretold(draws, sizes, events, "hit", (160e3, 32))["prediction"]
        assert found["low"] < found["mean"] < found["high"]
        inside += found["low"] <= 1 - float(law.missed(160e3, 32)) <= found["high"]
    assert inside >= 3


def test_nothing_is_foretold_of_what_was_trained_already(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "draw", lambda *_, **__: None)
    monkeypatch.setattr(scaling, "foretold", lambda *_: {"metric": "recall@100", "prediction": {"mean": 0.5}})
    sizes, last = scaling.grid(StudySettings())
    reports = {cell.name: [SimpleNamespace(settings=SimpleNamespace(bootstrap=10, seed=0))] for cell in sizes}
    path, final = tmp_path / "prediction.json", tmp_path / "greatest"

    def told(keys):
        return scaling._foretell(path, sizes, last, [1.0] * len(sizes), 2.0, reports, "recall@100", keys, final)

    first = told(["a"])
    assert json.loads(path.read_text())["keys"] == ["a"]
    final.mkdir()
    (final / "rows.json").write_text("{}")
    assert told(["a"]) == first, "what was foretold before stands"
    with pytest.raises(DataError, match="trained already"):
        told(["b"])


def test_the_check_says_whether_it_came_so():
    told = {"prediction": {"mean": 0.5, "low": 0.4, "high": 0.6}}
    assert scaling.check(told, {"mean": 0.45}) == {"observed": 0.45, "off_by": pytest.approx(-0.05), "inside": True}
    assert not scaling.check(told, {"mean": 0.7})["inside"]


# -- what is shown ------------------------------------------------------------------------------


def _reached(name, level, *, timed=False, kind="sessions"):
    return Measured(name, kind, timed, metrics={m: {"mean": level, "low": level, "high": level} for m in METRICS})


def test_time_aware_rows_have_a_table_of_their_own_with_a_best_of_their_own(tmp_path):
    models = [
        _reached("blind", 0.1),
        _reached("blinder", 0.05),
        _reached("aware", 0.4, timed=True),
        _reached("oracle", 0.9, timed=True, kind="oracle"),
    ]
    summary = Summary("overall", {"name": "log"}, {}, "nextsession study overall", None, models)
    blind, aware = cells(summary, best="**{}**")
    assert [line[0] for line in blind[2]] == ["blind", "blinder"]
    assert [line[0] for line in aware[2]] == ["oracle", "aware"]
    assert "**0.1000**" in blind[2][0]
    assert aware[0].startswith("◷")
    assert "| blind | **0.1000** |" in markdown(blind)
    summary.save(tmp_path / "overall.json")
    assert Summary.load(tmp_path / "overall.json") == summary


def _interval(mean):
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.02}


@pytest.mark.parametrize("name", [name for name in TITLES if name != "scaling"])
def test_every_study_has_a_page_that_loads_nothing(name):
    metrics = {m: _interval(0.2) for m in (*METRICS, "slate_auc", "slate_ndcg@10")}
    better = {m: _interval(0.3) for m in metrics}
    curve = {"epoch": [1.0, 2.0], "loss": [2.0, 1.0], "cpu_seconds": [3.0, 3.0], "ndcg@100": [0.1, 0.2]}
    models = [
        Measured("0", "items", False, x=0.0, metrics=metrics, curve=curve),
        Measured("<b>", "sessions", False, "0", 1.0, 2, better, {m: _interval(0.1) for m in (*metrics, "gain")}),
        Measured("failed", "items", False, x=1.0, failure="it broke"),
    ]
    data = {"name": "log", "protocol": "leave-one-session-out", "train": {"users": 3}, "test_questions": 2}
    text = page(Summary(name, data, {"seeds": 2}, f"nextsession study {name}", None, models))
    assert "<svg" in text
    assert "&lt;b&gt;" in text
    assert "it broke" in text
    assert "http" not in text.replace("http://www.w3.org", "").replace("http-equiv", "")
    if name == "overall":
        assert "&lt;b&gt; is best over the six metrics, +10.0% (+9.0% to +12.0%) beside 0" in text
