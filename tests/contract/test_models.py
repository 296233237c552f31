"""Every registered model, in each of its variants, keeps every promise (or breaks one it is exempted from)."""

import functools

import pytest

from nextsession import registry
from nextsession.testing import Subject, checks, subjects
from nextsession.testing.checks import examine, misused_exemptions

CHECKS = dict(checks())


@functools.cache
def subjects_of(name: str) -> list[Subject]:
    return subjects(registry.model_class(name))


def variants() -> list[object]:
    return [
        pytest.param(name, variant, id=str(subject))
        for name in registry.names()
        for variant, subject in enumerate(subjects_of(name))
    ]


@pytest.mark.parametrize("promise", CHECKS)
@pytest.mark.parametrize(("name", "variant"), variants())
def test_promise(name: str, variant: int, promise: str) -> None:
    outcome = examine(subjects_of(name)[variant], promise, CHECKS[promise])
    assert outcome.fine, str(outcome)


@pytest.mark.parametrize("name", registry.names())
def test_exemptions_are_real_reasoned_and_needed(name: str) -> None:
    model = registry.model_class(name)
    assert misused_exemptions(model) == []
    for promise in model.exemptions:
        assert any(examine(subject, promise, CHECKS[promise]).broken for subject in subjects_of(name)), promise
