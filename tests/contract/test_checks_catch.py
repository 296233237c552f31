"""A check is only as good as the faults it has caught: every one is shown a model that breaks its promise."""

import functools

import pytest
from toys import FAULTS, Backwards, Excused, Toy

from nextsession.errors import ModelError
from nextsession.testing import Subject, check, checks, outcomes, subjects
from nextsession.testing.checks import examine

CHECKS = dict(checks())


@functools.cache
def healthy() -> list[Subject]:
    return subjects(Toy)


@pytest.mark.parametrize("promise", CHECKS)
def test_a_healthy_model_keeps_every_promise(promise):
    for subject in healthy():
        outcome = examine(subject, promise, CHECKS[promise])
        assert outcome.fine, str(outcome)


@pytest.mark.parametrize(("promise", "toy"), [pytest.param(p, t, id=f"{p}-{t.__name__}") for p, t in FAULTS])
def test_a_broken_promise_is_noticed(promise, toy):
    outcome = examine(Subject(toy), promise, CHECKS[promise])
    assert outcome.broken is not None
    assert not outcome.fine
    assert outcome.promise in str(outcome)


def test_every_promise_has_been_broken_once():
    assert {promise for promise, _ in FAULTS} == set(CHECKS)


def test_every_promise_is_a_sentence():
    for name, function in CHECKS.items():
        sentence = (function.__doc__ or "").strip()
        assert sentence.endswith("."), name


def test_check_passes_a_healthy_model_and_reports_progress():
    seen = []
    check(Toy, progress=lambda task, done, total: seen.append((done, total)))
    assert seen[-1] == (2 * len(CHECKS), 2 * len(CHECKS))


def test_check_names_the_promise_and_what_was_found():
    with pytest.raises(ModelError, match=r"(?s)toys\(\): learns: What always happens is learnt.* Found: after \["):
        check(Backwards)


def test_an_exemption_lets_a_broken_promise_pass():
    check(Excused)
    told = [outcome for outcome in outcomes(Excused) if outcome.broken]
    assert [outcome.name for outcome in told] == ["learns"]
    assert str(told[0]).endswith("Exempted: it reads from right to left")


def test_an_exemption_from_a_promise_that_is_kept_is_refused():
    class Overcautious(Toy):
        """Healthy, and does not know it."""

        exemptions = {"threads": "not sure about that"}

    with pytest.raises(ModelError, match="toys: threads: kept by every variant; remove the exemption"):
        check(Overcautious)


def test_an_exemption_needs_a_promise_and_a_reason():
    class Confused(Toy):
        """Asks to be excused from something nobody asked for."""

        exemptions = {"thread": " "}

    message = r"no promise 'thread' to exempt\. Did you mean 'threads'\?\n.*gives no reason"
    with pytest.raises(ModelError, match=message):
        check(Confused)


def test_a_model_of_a_script_is_told_to_live_in_a_module():
    class Homeless(Toy):
        """Is known to nobody outside this function."""

    outcome = examine(Subject(Homeless), "saved", CHECKS["saved"])
    assert "must stand at the top of a module" in str(outcome)
