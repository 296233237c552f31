"""Promises about saving and loading."""

import tempfile
from pathlib import Path

import numpy as np

from nextsession.testing.elsewhere import answers_elsewhere
from nextsession.testing.subjects import Subject, arrays_of, expect, questions


def check_plain_arrays(subject: Subject) -> None:
    """What was learnt is plain arrays: numbers or truth values, never Python objects."""
    for name, values in arrays_of(subject.fitted):
        expect(values.dtype.kind in "biuf", f"{name} is an array of {values.dtype}.")


def check_saved(subject: Subject) -> None:
    """A model saved, and loaded in another process, gives the same answers."""
    expected = subject.fitted.recommend(questions(), 8)
    with tempfile.TemporaryDirectory() as folder:
        subject.fitted.save(Path(folder) / "model")
        answer = answers_elsewhere(subject.model_class, Path(folder) / "model")
    expect(np.array_equal(expected.items, answer.items), "the loaded model gives other lists.")
    expect(np.array_equal(expected.scores, answer.scores), "the loaded model gives other scores.")
