"""Asking: training puts the questions that an evaluation would, each once, by time, with what was known then."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nextsession import load, tasks, training
from nextsession.asking import AskedRows, MomentSettings
from nextsession.config import Runtime
from nextsession.data.cases import Cases
from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.distributed import Processes
from nextsession.models.sessionrec import SessionRec
from nextsession.nn.known import History
from nextsession.slices import Slices, latest
from nextsession.testing.strategies import MINUTE, logs
from nextsession.testing.subjects import training_log

V = 6
NAMES = Vocabulary(np.arange(V))
MOST = 5
LONG_AGO = -(10**15)


def rows_of(log: SessionLog, asks: str = "both", seed: int = 0, **settings: Any) -> AskedRows:
    made = MomentSettings(asks=asks, windows=("1h", "1d"), **settings)

    def seen(histories: SessionLog) -> Slices:
        return latest(histories.event_offsets, MOST)

    return AskedRows.of(log, made, History.of(log), MOST, seed, seen=seen, kinds=lambda _: None)


Question = tuple[int, int, tuple[int, ...], tuple[int, ...]]


def listed(cases: Cases) -> list[Question]:
    """Return (user, instant, what is seen of the history, what answers) of each question."""
    found = []
    for q in range(len(cases)):
        history = cases.histories.rows(q, q + 1).items[-4 * MOST :]
        targets = cases.targets[cases.target_offsets[q] : cases.target_offsets[q + 1]]
        found.append((int(cases.groups[q]), int(cases.asked_at[q]), tuple(history), tuple(targets)))
    return found


def all_of(plan: tasks.Plan) -> list[Question]:
    return [question for cases in plan() for question in listed(cases)]


# -- which questions ----------------------------------------------------------------------------


@given(log=logs(vocabulary=NAMES, overlaps=True), seed=st.integers(0, 3))
def test_questions_are_those_of_tasks(log: SessionLog, seed: int) -> None:
    sessions = sorted(all_of(tasks.next_session(log, LONG_AGO)))
    assert sorted(all_of(rows_of(log, "next-session").plan)) == sessions
    within = all_of(rows_of(log, "next-item", seed).plan)
    assert not set(within) - set(all_of(tasks.next_item(log, LONG_AGO)))
    assert sorted(all_of(rows_of(log, "both", seed).plan)) == sorted([*sessions, *within])


@given(log=logs(vocabulary=NAMES), seed=st.integers(0, 3))
def test_one_event_is_asked_for_within_each_session_that_has_one(log: SessionLog, seed: int) -> None:
    plan = rows_of(log, "next-item", seed).plan
    asked = dict(zip(log.sessions_of(plan.asked_from).tolist(), plan.asked_from.tolist(), strict=True))
    assert len(asked) == len(plan)
    for s in range(log.n_sessions):
        inside = range(log.session_offsets[s] + 1, log.session_offsets[s + 1])
        possible = [e for e in inside if log.labels[e] == 1]
        assert (s in asked) == bool(possible)
        assert not possible or asked[s] in possible


def test_every_event_may_be_the_one_that_is_asked_for() -> None:
    log = SessionLog.from_lists([[[0, 1, 2, 3]]], vocabulary=NAMES)
    asked = [int(rows_of(log, "next-item", seed).plan.asked_from[0]) for seed in range(300)]
    np.testing.assert_allclose(np.bincount(asked, minlength=4)[1:] / 300, 1 / 3, atol=0.1)


def test_questions_look_no_further_back_than_is_read() -> None:
    log = SessionLog.from_lists([[[0, 1]] * 20], vocabulary=NAMES)
    plan = rows_of(log, "next-session").plan
    assert (plan.seen_to - plan.seen_from).max() == 4 * MOST


# -- batches ------------------------------------------------------------------------------------


@given(log=logs(vocabulary=NAMES), seed=st.integers(0, 5), size=st.integers(1, 5), tokens=st.sampled_from([None, 1, 9]))
def test_every_question_is_put_once_an_epoch(log: SessionLog, seed: int, size: int, tokens: int | None) -> None:
    rows = rows_of(log)
    batches = rows.order(np.random.default_rng(seed), size, tokens)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(rows)))
    lengths = rows.plan.seen_to - rows.plan.seen_from
    for batch in batches:
        assert 0 < len(batch) <= size
        assert tokens is None or len(batch) == 1 or lengths[batch].sum() <= tokens


def test_batches_are_of_questions_one_after_another_and_cut_anew() -> None:
    log = training_log()
    rows = rows_of(log)
    assert (np.diff(rows.plan.asked_at) >= 0).all()
    orders = [rows.order(np.random.default_rng(seed), 8) for seed in range(4)]
    for order in orders:
        assert all((np.diff(batch) == 1).all() for batch in order)
        assert [batch[0] for batch in order] != sorted(batch[0] for batch in order)
        assert len(order) <= len(rows) // 8 + 2
    assert len({frozenset(int(batch[0]) for batch in order) for order in orders}) > 1


def test_without_times_questions_are_shuffled() -> None:
    log = replace(training_log(), timed=False)
    rows = AskedRows.of(
        log,
        MomentSettings(windows=()),
        None,
        MOST,
        0,
        seen=lambda h: latest(h.event_offsets, MOST),
        kinds=lambda _: None,
    )
    order = rows.order(np.random.default_rng(0), 8)
    assert sorted(np.concatenate(order).tolist()) == list(range(len(rows)))
    assert not all((np.diff(batch) == 1).all() for batch in order)


@given(log=logs(vocabulary=NAMES), seed=st.integers(0, 5))
def test_a_batch_holds_questions_answers_and_what_was_known(log: SessionLog, seed: int) -> None:
    rows = rows_of(log, resolution="1m")
    chosen = np.random.default_rng(seed).permutation(len(rows))[:4]
    if not len(chosen):
        return
    batch, cases = rows.batch(chosen), rows.plan.take(np.sort(chosen)).cases(0, len(chosen))
    assert len(batch) == len(chosen)
    assert batch.events.asked_at is not None
    assert batch.events.asked_at.tolist() == cases.asked_at.tolist()
    answers: list[list[int]] = [[] for _ in chosen]
    shown: list[list[int]] = [[] for _ in chosen]
    for found, items, of in ((answers, batch.positives, batch.of_query), (shown, batch.shown, batch.shown_of)):
        assert items is not None
        assert of is not None
        assert (of[1:] >= of[:-1]).all()
        for item, q in zip(items.tolist(), of.tolist(), strict=True):
            found[q].append(item)
    for q, (_, asked_at, history, targets) in enumerate(listed(cases)):
        a, z = batch.events.offsets[q], batch.events.offsets[q + 1]
        assert batch.events.values[a:z].tolist() == list(history)[-MOST:]
        assert answers[q] == list(targets)
        assert len(set(answers[q])) == len(answers[q]) > 0
        assert len(set(shown[q])) == len(shown[q])
        assert not set(shown[q]) & set(answers[q])
        then = batch.known
        assert then is not None
        assert then.items is not None
        moment = int(then.moment_of(torch.tensor([q])))
        windows = np.array(rows.settings.windows, np.int64)
        at = asked_at // MINUTE * MINUTE
        expected = History.of(log).features(at, windows)
        np.testing.assert_array_equal(then.items[moment].numpy(), expected)
        had = set(then.had[then.rows == q].tolist())
        assert had == set(history)


@pytest.mark.parametrize("size", [2, 3])
def test_shares_of_a_batch_are_the_batch(size: int) -> None:
    """Several processes put the questions of one; one that has none puts none."""
    rows = rows_of(training_log())
    chosen = rows.order(np.random.default_rng(0), 7)[1]
    whole = rows.batch(chosen)
    parts = [rows.batch(Processes(rank, size).share(chosen)) for rank in range(size)]
    assert sorted(t for p in parts for t in p.events.asked_at.tolist()) == whole.events.asked_at.tolist()  # type: ignore[union-attr]
    assert sorted(i for p in parts for i in p.positives.tolist()) == sorted(whole.positives.tolist())  # type: ignore[union-attr]
    nothing = rows.batch(Processes(1, 2).share(chosen[:1]))
    assert len(nothing) == 0
    model = made().fit(training_log(), runtime=CPU)
    assert len(model.network_.examples(nothing)) == 0


# -- training -----------------------------------------------------------------------------------

CPU = Runtime(device="cpu")


def made(**settings: Any) -> SessionRec:
    small = {"dim": 8, "layers": 1, "epochs": 2, "batch_size": 16, "max_length": 10, "learning_rate": 0.02}
    return SessionRec(**{**small, "moment": {"windows": ["1h", "1d"], "hidden": 4, "width": 2}, **settings})


class KilledError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("variant", [{}, {"batch_tokens": 40, "ema": 0.9, "within": "separate"}])
def test_going_on_after_a_kill_ends_bit_for_bit_where_it_would_have(tmp_path, monkeypatch, variant) -> None:
    log = training_log()
    whole = made(**variant).fit(log, runtime=CPU)
    taken = []

    def step(self, *arguments):
        if len(taken) == at:
            raise KilledError
        taken.append(1)
        return original(self, *arguments)

    original = training._Passes.step
    for at in (1, 4, 13):
        taken.clear()
        runtime = Runtime(device="cpu", checkpoints=str(tmp_path / str(at)), checkpoint_every=0)
        with monkeypatch.context() as patch:
            patch.setattr("nextsession.training._Passes.step", step)
            with pytest.raises(KilledError):
                made(**variant).fit(log, runtime=runtime)
        again = made(**variant).fit(log, runtime=runtime)
        for name, weight in whole.network_.state_dict().items():
            assert torch.equal(weight, again.network_.state_dict()[name]), (at, name)
        assert again.curve_[:, 1].tolist() == whole.curve_[:, 1].tolist()


def test_the_loss_falls_and_what_is_kept_answers_alike(tmp_path) -> None:
    model = made(epochs=15).fit(training_log(), runtime=CPU)
    assert model.curve_[-1, 1] < 0.9 * model.curve_[0, 1]
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    asked = training_log(seed=3)
    np.testing.assert_array_equal(model.scores(asked).dense(), again.scores(asked).dense())


def test_what_everybody_did_before_the_question_is_known_and_nothing_later() -> None:
    log = training_log()
    model = made(across="gru", open="never", moment={"windows": ["1h"], "repeats": False}).fit(log, runtime=CPU)
    nobody, at = SessionLog.from_lists([[]], vocabulary=log.vocabulary), int(np.median(log.times))
    now, first = (model.scores(nobody, asked_at=int(t)).dense() for t in (at, log.times.min()))
    assert not np.allclose(now, first)
    model.history_ = model.history_.joined(replace(log, times=log.times + at - log.times.min()))  # type: ignore[union-attr]
    np.testing.assert_array_equal(model.scores(nobody, asked_at=at).dense(), now)
    assert not np.allclose(model.scores(nobody, asked_at=at + 1).dense(), now)
