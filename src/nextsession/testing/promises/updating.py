"""Promises about learning on from later events."""

from dataclasses import replace

import numpy as np

from nextsession.data.log import SessionLog
from nextsession.errors import ModelError
from nextsession.testing.subjects import HOUR, Subject, arrays_of, expect, expect_same, matrix, questions, training_log


def check_update_refused(subject: Subject) -> None:
    """A model that cannot learn on says so, and says to fit it again."""
    model = subject.fit(training_log())
    if model.can_update:
        return
    try:
        model.update(questions())
    except ModelError as error:
        expect("fit it again" in str(error), f"the message does not say what to do: {error}")
    else:
        expect(False, "update did nothing, in silence.")


def check_update_with_nothing(subject: Subject) -> None:
    """Learning on from nothing changes nothing."""
    model = subject.fit(training_log())
    if not model.can_update:
        return
    before = dict(arrays_of(model))
    expect(model.update(questions().take([])) is model, "update returned something else.")
    for name, values in arrays_of(model):
        expect(np.array_equal(values, before[name], equal_nan=values.dtype.kind == "f"), f"{name} changed.")


def check_update_knows_all(subject: Subject) -> None:
    """After learning on every item of both logs is known, old codes are as they were, and new items can be listed."""
    model = subject.fit(training_log())
    if not model.can_update:
        return
    old = model.vocabulary_.ids.copy()
    later = SessionLog.from_lists([[["new", "item 01"], ["newer", "new"]], [["item 01", "new"]]])
    model.update(later)
    expect(np.array_equal(model.vocabulary_.ids[: len(old)], old), "old codes changed.")
    expect(set(later.vocabulary.ids) <= set(model.vocabulary_.ids), "an item of the later log is not known.")
    scores = matrix(model, SessionLog.from_lists([[["newer", "new"]], [["item 01"]]]))
    expect(scores.shape[1] == len(old) + 2, f"there are {len(old) + 2} items, {scores.shape[1]} are scored.")
    expect(np.all(scores < np.inf), "a score is not a number below infinity.")  # NaN is not below
    new = int(model.vocabulary_.encode(["new"])[0])
    expect(np.any(scores[:, new] > -np.inf), "an item learnt later is never listed.")


def check_update_spares_others(subject: Subject) -> None:
    """Learning on, and a copy fitted on the same log, do not touch one another."""
    model, other = subject.fit(training_log()), subject.fit(training_log())
    if not model.can_update:
        return
    before = matrix(other, questions())
    model.update(training_log(seed=9))
    expect_same(before, matrix(other, questions()), "after another model of the same kind has learnt on")


def check_told_of_later_events(subject: Subject) -> None:
    """What a model that `looks_back` is told of after the instant of a question moves none of its scores."""
    model = subject.fit(training_log())
    if not (model.can_update and model.looks_back):
        return
    asked, later = questions(), training_log(seed=9)
    instant = int(asked.times.max()) + HOUR
    before = matrix(model, asked, asked_at=instant)
    model.update(replace(later, times=later.times - later.times.min() + instant))
    expect_same(before, matrix(model, asked, asked_at=instant)[:, : before.shape[1]], "when told of later events")
