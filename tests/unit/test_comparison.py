import json
import signal
import time

import pytest

from nextsession import comparison
from nextsession.checkpoints import cpu_seconds
from nextsession.comparison import ModelSpec, Row, check_one_table, compare, missing_baselines, read_rows
from nextsession.config import Runtime, Settings
from nextsession.cost import OverBudgetError, forget_peak, peak_memory, within
from nextsession.data.log import SessionLog
from nextsession.errors import ArtifactError, ConfigError, DataError, UnknownNameError
from nextsession.evaluation import EvaluationSettings
from nextsession.models.popular import Popular
from nextsession.splits import SplitSettings, split

RULES = EvaluationSettings(k=(2, 5), bootstrap=20)
SPECS = [ModelSpec("popular"), ModelSpec("popular", {"count": "sessions"})]


class Nothing(Settings):
    pass


class Clumsy(Popular):
    """Fails while it learns."""

    name = "clumsy"

    def _fit(self, log, runtime):
        raise ZeroDivisionError("there is nothing to divide")


class Greedy(Popular):
    """Never comes to an end."""

    name = "greedy"

    def _fit(self, log, runtime):
        if log.n_events > 260:
            end = time.process_time() + 30
            while time.process_time() < end:
                pass
        super()._fit(log, runtime)


@pytest.fixture
def some_split():
    log = SessionLog.from_lists([[["a", "b", "a"], ["b", f"x{u % 3}"], ["a", "c"]] for u in range(60)])
    return split(log, SplitSettings(protocol="leave-one-session-out"))


@pytest.fixture
def toys(monkeypatch):
    known = {"clumsy": Clumsy, "greedy": Greedy}
    create = comparison.create
    monkeypatch.setattr(
        comparison, "create", lambda name, **s: known[name](**s) if name in known else create(name, **s)
    )


def test_rows_say_everything_that_decides_them(some_split, tmp_path):
    rows = compare(some_split, SPECS, RULES, out=tmp_path, data="toy")
    row = rows[1]
    assert (row.model, row.title, row.seed, row.reads_clock) == ("popular", "popular(count=sessions)", 0, False)
    assert row.data["name"] == "toy"
    assert row.data["train"]["sessions"] == 120
    assert row.protocol["name"] == "leave-one-session-out"
    assert row.protocol["candidates"] == "all"
    assert (row.protocol["exclude"], row.protocol["ties"], row.protocol["k"]) == ("nothing", "median", [2, 5])
    assert set(row.metrics["ndcg@2"]) == {"mean", "low", "high"}
    assert row.questions["n"] == 60
    assert row.cost.bytes is not None
    assert row.cost.bytes > 100
    assert row.cost.fit_cpu_s is not None
    assert {"session_length", "item_popularity"} <= set(row.breakdown)
    assert row.failure is None
    assert "numpy" in row.versions
    assert read_rows(tmp_path / "rows.json") == rows
    json.dumps(row.to_dict(), allow_nan=False)


def test_each_row_is_set_against_the_best_and_the_best_against_the_second(some_split, tmp_path):
    specs = [*SPECS, ModelSpec("popular", seed=7)]
    rows = compare(some_split, specs, RULES, out=tmp_path)
    first = next(iter(rows[0].metrics))
    best = max(rows, key=lambda row: row.metrics[first]["mean"])
    for row in rows:
        found = {d.metric: d for d in row.differences}[first]
        others = [r for r in rows if r.title == found.against]
        assert found.mean == pytest.approx(row.metrics[first]["mean"] - others[0].metrics[first]["mean"])
        assert found.low <= found.mean <= found.high
        assert found.mean <= 0 or row is best


def test_a_second_run_takes_what_is_there(some_split, tmp_path, monkeypatch):
    rows = compare(some_split, SPECS, RULES, out=tmp_path)
    monkeypatch.setattr(Popular, "_fit", lambda *_: pytest.fail("learnt again"))
    assert compare(some_split, SPECS, RULES, out=tmp_path) == rows
    assert compare(some_split, SPECS, RULES, out=tmp_path, data="other")[0].data["name"] == "other"


def test_whatever_decides_a_row_makes_a_new_one(some_split, tmp_path):
    def keys(found, specs, rules):
        return {row.key for row in compare(found, specs, rules, out=tmp_path)}

    base = keys(some_split, SPECS[:1], RULES)
    assert base == keys(some_split, SPECS[:1], RULES)
    other = SessionLog.from_lists([[["a", "b"], ["b"], ["c"]]] * 9)
    assert base != keys(split(other, some_split.settings), SPECS[:1], RULES)
    assert base != keys(some_split, SPECS[1:], RULES)
    assert base != keys(some_split, [ModelSpec("popular", seed=1)], RULES)
    assert base != keys(some_split, SPECS[:1], RULES.model_copy(update={"ties": "conservative"}))


def test_a_damaged_row_is_made_again(some_split, tmp_path):
    rows = compare(some_split, SPECS, RULES, out=tmp_path)
    first, second = tmp_path.glob("popular-*.json")
    first.write_text(first.read_text()[:100])
    second.with_suffix(".npz").unlink()
    again = compare(some_split, SPECS, RULES, out=tmp_path)
    assert [row.metrics for row in again] == [row.metrics for row in rows]


@pytest.mark.usefixtures("toys")
def test_a_model_that_fails_has_a_row_and_stops_nobody(some_split, tmp_path, monkeypatch):
    rows = compare(some_split, [ModelSpec("clumsy"), *SPECS], RULES, out=tmp_path)
    assert rows[0].failure == "ZeroDivisionError: there is nothing to divide"
    assert rows[0].metrics == {}
    assert all(row.metrics for row in rows[1:])
    monkeypatch.setattr(Clumsy, "_fit", Popular._fit)
    assert compare(some_split, [ModelSpec("clumsy")], RULES, out=tmp_path)[0].failure is None


@pytest.mark.usefixtures("toys")
def test_a_model_over_its_budget_has_a_row_and_is_not_tried_again(some_split, tmp_path, monkeypatch):
    rows = compare(some_split, [ModelSpec("greedy"), *SPECS], RULES, out=tmp_path, budget=0.5)
    assert rows[0].over_budget
    assert rows[0].failure.startswith("Over budget: it used more than its budget of 0.5 CPU-seconds; stopped after ")
    assert 0.3 < rows[0].cost.fit_cpu_s < 5
    assert all(row.metrics for row in rows[1:])
    monkeypatch.setattr(Greedy, "_fit", Popular._fit)
    assert compare(some_split, [ModelSpec("greedy")], RULES, out=tmp_path, budget=0.5)[0].over_budget
    assert compare(some_split, [ModelSpec("greedy")], RULES, out=tmp_path, budget=60)[0].failure is None


NETWORK = ModelSpec("sasrec", {"dim": 8, "epochs": 4, "batch_size": 8, "max_length": 6})


def stopped_within(monkeypatch, some_split, epoch, **more):
    """Compare until the second step of an epoch, then be stopped by the person before the terminal."""
    from nextsession.training import _Passes

    step = _Passes.step

    def stopped(passes, *arguments):
        if len(passes.rows) > 50 and (passes.state.epoch, passes.state.step) == (epoch, 1):
            raise KeyboardInterrupt
        step(passes, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_Passes, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            compare(some_split, [NETWORK], RULES, **more)


def test_a_comparison_with_checkpoints_goes_on_within_a_training(some_split, tmp_path, monkeypatch):
    kept = Runtime(device="cpu", checkpoints=str(tmp_path / "kept"))
    (whole,) = compare(some_split, [NETWORK], RULES, out=tmp_path / "whole")
    stopped_within(monkeypatch, some_split, epoch=3, out=tmp_path / "out", runtime=kept)
    (state,) = (tmp_path / "kept").glob("sasrec-*/sasrec/state")
    spent = cpu_seconds(state)
    (row,) = compare(some_split, [NETWORK], RULES, out=tmp_path / "out", runtime=kept)
    assert row.metrics == whole.metrics
    assert {**row.curve, "cpu_seconds": []} == {**whole.curve, "cpu_seconds": []}
    assert 0 < spent < row.cost.fit_cpu_s
    stopped_within(monkeypatch, some_split, epoch=0, out=tmp_path / "out", runtime=kept, resume=False)  # trains anew
    assert not state.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # raised in a callback of hypothesis
def test_what_was_spent_before_an_interruption_counts_for_the_budget(some_split, tmp_path, monkeypatch):
    kept = Runtime(device="cpu", checkpoints=str(tmp_path / "kept"))
    stopped_within(monkeypatch, some_split, epoch=3, out=tmp_path / "out", runtime=kept)
    monkeypatch.setattr(comparison, "cpu_seconds", lambda state: 1000.0)
    (row,) = compare(some_split, [NETWORK], RULES, out=tmp_path / "out", runtime=kept, budget=500)
    assert row.over_budget, row.failure
    (row,) = compare(some_split, [NETWORK], RULES, out=tmp_path / "out", runtime=kept, budget=2000)
    assert row.failure is None
    assert row.cost.fit_cpu_s > 1000


def test_a_damaged_checkpoint_counts_as_no_cost(tmp_path):
    assert cpu_seconds(tmp_path) == 0
    for content in ("{", "[]", "{}", '{"notes": null}', '{"notes": {"cpu_seconds": "much"}}'):
        (tmp_path / "manifest.json").write_text(content)
        assert cpu_seconds(tmp_path) == 0


def test_names_and_settings_are_checked_before_anything_is_trained(some_split, tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'popular'"):
        compare(some_split, [SPECS[0], ModelSpec("popula")], RULES, out=tmp_path)
    with pytest.raises(ConfigError, match="there is no such setting"):
        compare(some_split, [SPECS[0], ModelSpec("popular", {"cuont": "events"})], RULES, out=tmp_path)
    with pytest.raises(ConfigError, match="name at least one model"):
        compare(some_split, [], RULES, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_baselines_are_named(some_split, tmp_path):
    assert missing_baselines(["recent", "stan", "sequentialrules"]) == []
    rows = compare(some_split, SPECS, RULES, out=tmp_path)
    assert rows[0].missing_baselines == ["recent popularity", "session kNN", "sequential rules"]


def test_rows_of_different_rules_or_data_are_not_put_in_one_table(some_split, tmp_path):
    rows = compare(some_split, SPECS[:1], RULES, out=tmp_path)
    check_one_table(rows * 2)
    check_one_table([])
    for change, name in (({"k": (3,)}, "k"), ({"ties": "optimistic"}, "ties"), ({"exclude": "history"}, "exclude")):
        other = compare(some_split, SPECS[:1], RULES.model_copy(update=change), out=tmp_path)
        with pytest.raises(DataError, match=f"Rows of one table must agree in {name}: popular has"):
            check_one_table([*rows, *other])
    log = SessionLog.from_lists([[["a", "b"], ["b"], ["c"]]] * 9)
    for values, name in ((some_split.settings, "data"), (SplitSettings(protocol="leave-one-item-out"), "data")):
        other = compare(split(log, values), SPECS[:1], RULES, out=tmp_path)
        with pytest.raises(DataError, match=f"must agree in {name}"):
            check_one_table([*rows, *other])


def test_files_that_hold_no_rows_are_refused(tmp_path):
    for name, text in (("broken.json", "{"), ("list.json", "[]"), ("empty.json", '{"format": 1}')):
        (tmp_path / name).write_text(text)
        with pytest.raises(ArtifactError, match=f"{name} holds no rows"):
            read_rows(tmp_path / name)
    (tmp_path / "new.json").write_text('{"format": 99, "rows": []}')
    with pytest.raises(ArtifactError, match="format 99, this version reads up to 1"):
        read_rows(tmp_path / "new.json")
    with pytest.raises(ArtifactError, match="no row of a comparison"):
        Row.from_dict({"model": "popular"})


def test_work_within_its_budget_is_not_interrupted():
    with within(20) as watch:
        sum(range(1000))
    assert 0 <= watch.seconds < 20


def test_compiled_work_over_its_budget_is_noticed_at_its_end():
    with pytest.raises(OverBudgetError, match=r"budget of 0\.05 CPU-seconds"), within(0.05):
        sum(range(30_000_000))


def test_peak_memory_counts_from_where_it_was_told():
    forget_peak()
    before = peak_memory()
    if before is None:
        pytest.skip("this system does not say how much memory a process held")
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    assert peak_memory() > before + 150


def interrupted():
    try:
        while True:
            pass
    except OverBudgetError:
        raise SystemError("<a compiled loop> returned a result with an exception set") from None


def interrupted_early():
    signal.raise_signal(signal.SIGPROF)
    interrupted()


def test_a_compiled_call_that_the_timer_interrupts_is_over_budget_too():
    with pytest.raises(OverBudgetError, match=r"budget of 0\.05 CPU-seconds"), within(0.05):
        interrupted()


def test_a_timer_that_is_early_is_wound_up_again():
    with within(60):
        signal.raise_signal(signal.SIGPROF)
    with pytest.raises(OverBudgetError, match=r"budget of 0\.1 CPU-seconds"), within(0.1):
        interrupted_early()


def test_other_system_errors_are_passed_on():
    with pytest.raises(SystemError, match="something else"), within(5.0):
        raise SystemError("something else")
