"""Promises about what a model learns, and from what."""

import gc
import random
import weakref
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from nextsession.data.log import SessionLog
from nextsession.errors import DataError, NotFittedError
from nextsession.recommender import Recommender
from nextsession.testing.subjects import (
    HOUR,
    MARKER,
    START,
    Subject,
    expect,
    expect_same,
    matrix,
    questions,
    training_log,
    wanted_log,
)


def check_not_fitted(subject: Subject) -> None:
    """A model that has learnt nothing refuses to answer and says that `fit` comes first."""
    asks: dict[str, Callable[[Recommender[Any]], object]] = {
        "recommend": lambda model: model.recommend(questions()),
        "scores": lambda model: model.scores(questions()),
        "update": lambda model: model.update(questions()),
        "save": lambda model: model.save("nowhere"),
    }
    for name, ask in asks.items():
        try:
            ask(subject.new())
        except NotFittedError as error:
            expect("fit" in str(error), f"the message of {name} does not say what to do: {error}")
        else:
            expect(False, f"{name} did not raise NotFittedError.")


def check_empty_log(subject: Subject) -> None:
    """A log without a single wanted event is refused with `DataError`."""
    log = training_log()
    for kind, nothing in (
        ("without events", log.take([])),
        ("of ignored events only", replace(log, labels=np.zeros(log.n_events, np.int8))),
    ):
        try:
            subject.fit(nothing)
        except DataError:
            continue
        expect(False, f"a log {kind} was taken.")


def check_smallest_logs(subject: Subject) -> None:
    """The smallest logs teach what they can: one event, one item over and over, one session, one user."""
    for users in ([[["a"]]], [[["a", "a", "a"], ["a"]]], [[["a", "b"]]], [[["a"]], [["a"]], [["b"]]]):
        log = SessionLog.from_lists(users)
        scores = matrix(subject.fit(log), SessionLog.from_lists([[["a"]], [], [["z"]]]))
        expect(scores.shape == (3, log.n_items), f"after {users} the scores have the shape {scores.shape}.")
        expect(np.all(scores < np.inf), f"after {users} the scores are {scores.tolist()}.")  # NaN is not below


def check_fit_returns_self(subject: Subject) -> None:
    """`fit` returns the model itself."""
    model = subject.new()
    expect(model.fit(training_log()) is model, "fit returned something else.")


def check_log_spared(subject: Subject) -> None:
    """`fit` leaves the log as it was, and learns from one that cannot be written to."""
    for log in (training_log(), wanted_log()):
        before = {name: column.copy() for name, column in _columns(log).items()}
        subject.fit(log)
        for name, column in _columns(log).items():
            expect(np.array_equal(column, before[name]), f"fit changed the {name} of the log.")
    columns = _columns(wanted_log())
    for column in columns.values():
        column.flags.writeable = False
    subject.fit(replace(wanted_log(), **columns))


def check_forgets(subject: Subject) -> None:
    """A second `fit` forgets the first."""
    twice = subject.fit(training_log(seed=8)).fit(training_log())
    expect_same(matrix(subject.fitted, questions()), matrix(twice, questions()), "after an earlier fit on another log")


def check_log_let_go(subject: Subject) -> None:
    """Once `fit` is over the model no longer holds the log."""
    log = wanted_log()
    gone = weakref.ref(log)
    model = subject.fit(log)
    del log
    gc.collect()
    expect(gone() is None, f"{model!r} keeps the log alive.")


def check_random_state_kept(subject: Subject) -> None:
    """Learning and answering leave the global random generators and error settings as they found them."""
    before = _global_state()
    subject.fit(training_log()).recommend(questions(), k=3)
    for what, state in _global_state().items():
        expect(state == before[what], f"{what} is not as it was before.")


def check_seed(subject: Subject) -> None:
    """The same seed gives the same model; another seed gives another model if, and only if, it is stochastic."""
    first, again, other = (matrix(subject.fit(training_log(), seed=s), questions()) for s in (3, 3, 4))
    expect(np.array_equal(first, again), "two models of one seed answer differently.")
    if subject.model_class.stochastic:
        expect(not np.array_equal(first, other), "the model is stochastic, and yet two seeds give the same answers.")
    else:
        expect(np.array_equal(first, other), "the model is not stochastic, and yet two seeds give different answers.")


def check_order_of_users(subject: Subject) -> None:
    """The order of the users in the log means nothing (to a model that draws no random numbers)."""
    if subject.model_class.stochastic:
        return
    log = training_log()
    shuffled = log.take(np.random.default_rng(2).permutation(len(log)))
    expect_same(
        matrix(subject.fitted, questions()),
        matrix(subject.fit(shuffled), questions()),
        "when the users of the log come in another order",
    )


def check_user_ids(subject: Subject) -> None:
    """The ids of users mean nothing: a history is answered by what is in it."""
    log, asked = training_log(), questions()
    renamed = replace(log, users=np.array([f"user {i}" for i in reversed(range(len(log)))], dtype=object))
    others = replace(asked, users=np.array([f"user {i}" for i in range(len(asked))], dtype=object))
    expect_same(matrix(subject.fitted, asked), matrix(subject.fit(renamed), others), "when users have other ids")


def check_item_ids(subject: Subject) -> None:
    """The ids of items mean nothing: integers and strings in the same order teach the same."""
    asked = training_log(seed=11, users=8)
    numbered = training_log(seed=11, users=8, integer_ids=True)
    expect_same(
        matrix(subject.fitted, asked),
        matrix(subject.fit(training_log(integer_ids=True)), numbered),
        "when the ids of items are integers",
    )


def check_ignored_unread(subject: Subject) -> None:
    """Events that were shown and ignored teach nothing and ask nothing, unless the model `reads_ignored`."""
    if subject.model_class.reads_ignored:
        return
    log = training_log()
    changed = np.where(log.labels == 1, log.items, (log.items + 5) % log.n_items).astype(np.int32)
    other = replace(log, items=changed)
    expect_same(
        matrix(subject.fitted, log, asked_at=START + 2000 * HOUR),
        matrix(subject.fit(other), other, asked_at=START + 2000 * HOUR),
        "when only ignored events differ",
    )


def check_learns(subject: Subject) -> None:
    """What always happens is learnt: a next-session model finds a habit, a model of order the next item of a cycle.

    Settings can switch the sense of order off, so only the first example is asked about the cycle.
    """
    if subject.model_class.predicts == "next-session":
        habits = [[f"{user % 4}{item}" for item in "abc"] for user in range(24)]
        model = subject.fit(SessionLog.from_lists([[habit] * 4 for habit in habits]))
        for habit, found in zip(
            habits, model.recommend(SessionLog.from_lists([[h] * 3 for h in habits]), 3), strict=True
        ):
            expect(set(found) == set(habit), f"who always takes {habit} is told {found}.")
    elif subject.model_class.ordered and subject.settings == subject.model_class.examples()[0]:
        names = [f"step {i:02}" for i in range(12)]
        runs = [[[names[(first + i) % 12] for i in range(5)]] for first in range(24)]
        times = [[[START + HOUR * first + 60_000 * i for i in range(5)]] for first in range(24)]
        model = subject.fit(SessionLog.from_lists(runs, times=times))
        asked = [[names[(first + i) % 12] for i in range(3)] for first in range(12)]
        histories = SessionLog.from_lists([[h] for h in asked])
        answers = model.recommend(histories, 1, asked_at=START + 30 * HOUR, exclude="session")
        for first, found in enumerate(answers):
            expect(found == [names[(first + 3) % 12]], f"after {asked[first]} of a cycle comes {found}.")


def check_order_read(subject: Subject) -> None:
    """A model that is not `ordered` gives the same answer whatever the order of the items in a session."""
    if subject.model_class.ordered:
        return
    asked = questions()
    place = np.lexsort((-np.arange(asked.n_events), asked.session_of_event))
    backwards = replace(asked, items=asked.items[place])
    expect_same(matrix(subject.fitted, asked), matrix(subject.fitted, backwards), "when sessions are read backwards")


def check_clock(subject: Subject) -> None:
    """The instant of the question matters only to a model that `reads_clock`, and nothing later than it matters."""
    asked = questions()
    instant = int(asked.times.max()) + HOUR
    now = matrix(subject.fitted, asked, asked_at=instant)
    if not subject.model_class.reads_clock:
        later = matrix(subject.fitted, asked, asked_at=instant + 400 * HOUR)
        expect_same(now, later, "when the question is put later")
        return
    knowing = subject.fit(_with_future(training_log(), instant + HOUR))
    expect_same(now, matrix(knowing, asked, asked_at=instant), "when the log goes on after the question")


def _with_future(log: SessionLog, start: int) -> SessionLog:
    """Return the log and, from `start` on, ten more users for whom everything leads to the marker."""
    marker = int(log.vocabulary.encode([MARKER])[0])
    items = np.array([[i, marker, i + 1, marker] for i in range(10)], np.int32)
    return SessionLog(
        items=np.concatenate([log.items, items.ravel()]),
        times=np.concatenate([log.times, start + 60_000 * np.arange(items.size)]),
        session_offsets=np.concatenate([log.session_offsets, log.n_events + 4 * np.arange(1, 11)]),
        user_offsets=np.concatenate([log.user_offsets, log.n_sessions + np.arange(1, 11)]),
        vocabulary=log.vocabulary,
        labels=np.concatenate([log.labels, np.ones(items.size, np.int8)]),
    )


def _global_state() -> dict[str, object]:
    return {
        "random": random.getstate(),
        "numpy.random": repr(np.random.get_state(legacy=False)),
        "numpy.errstate": np.geterr(),
    }


def _columns(log: SessionLog) -> dict[str, Any]:
    """Return every array of a log by name, the ids of the vocabulary too."""
    own = {f.name: getattr(log, f.name) for f in fields(log)}
    return {name: column for name, column in own.items() if isinstance(column, np.ndarray)}
