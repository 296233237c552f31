"""Run the promises of `nextsession.testing.promises`, and report which a model keeps.

A promise is a function `check_<name>(subject)` whose docstring is the promise.  A model that
cannot keep one says so in `exemptions = {"<name>": "<reason>"}`; exemptions are strict, so a
promise that every variant keeps may not be exempted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from nextsession.errors import ModelError, suggestion
from nextsession.progress import Progress, silent
from nextsession.recommender import Recommender
from nextsession.testing.promises import answers, keeping, learning, settings, updating
from nextsession.testing.subjects import Subject, subjects

Check: TypeAlias = Callable[[Subject], None]
"""Raises when the subject breaks the promise in the function's docstring."""


@dataclass(frozen=True)
class Outcome:
    """How one model, in one variant, stands to one promise."""

    subject: Subject
    name: str
    """The name of the promise, as in `exemptions`."""
    promise: str
    """The promise, as a sentence."""
    broken: str | None
    """What was found, or None: the promise was kept."""
    exempted: str | None
    """The reason the model gives for not keeping it."""

    @property
    def fine(self) -> bool:
        """Was the promise kept, or broken as announced?"""
        return self.broken is None or self.exempted is not None

    def __str__(self) -> str:
        """Say who broke which promise, and how it showed."""
        who = f"{self.subject}: {self.name}"
        if self.broken is None:
            return f"{who}: kept."
        return f"{who}: {self.promise} Found: {self.broken}" + (f" Exempted: {self.exempted}" if self.exempted else "")


def checks() -> Iterator[tuple[str, Check]]:
    """Give the name and the function of every promise.

    >>> "exclude_session" in dict(checks())
    True
    """
    for module in (settings, learning, answers, updating, keeping):
        for name, function in vars(module).items():
            if name.startswith("check_"):
                yield name.removeprefix("check_"), function


def examine(subject: Subject, name: str, function: Check) -> Outcome:
    """Hold one subject to one promise."""
    broken = None
    try:
        function(subject)
    except Exception as error:  # whatever goes wrong, the promise was not kept
        broken = str(error) if type(error) is ModelError else f"{type(error).__name__}: {error}"
    promise = (function.__doc__ or "").partition("\n")[0]
    return Outcome(subject, name, promise, broken, subject.model_class.exemptions.get(name))


def outcomes(model_class: type[Recommender[Any]], *, progress: Progress = silent) -> Iterator[Outcome]:
    """Hold a model, in each of its variants, to every promise."""
    work = [(subject, name, function) for subject in subjects(model_class) for name, function in checks()]
    for done, (subject, name, function) in enumerate(work):
        progress("promises", done, len(work))
        yield examine(subject, name, function)
    progress("promises", len(work), len(work))


def check(model_class: type[Recommender[Any]], *, progress: Progress = silent) -> None:
    """Hold a model, in each of its variants, to every promise.

    Raises:
        ModelError: Promises are broken (each is named, with what was found), or an exemption is
            needless, gives no reason, or is of a promise that does not exist.
    """
    wrong = misused_exemptions(model_class)
    found = list(outcomes(model_class, progress=progress))
    wrong += [str(outcome) for outcome in found if not outcome.fine]
    for name in set(model_class.exemptions) - {outcome.name for outcome in found if outcome.broken}:
        wrong.append(f"{model_class.name}: {name}: kept by every variant; remove the exemption.")
    if wrong:
        raise ModelError("\n".join(wrong))


def misused_exemptions(model_class: type[Recommender[Any]]) -> list[str]:
    """Return what is wrong with the exemptions of a model before any promise is tried."""
    known = [name for name, _ in checks()]
    wrong = []
    for name, reason in model_class.exemptions.items():
        if name not in known:
            wrong.append(f"{model_class.name}: there is no promise {name!r} to exempt.{suggestion(name, known)}")
        if not reason.strip():
            wrong.append(f"{model_class.name}: {name}: the exemption gives no reason.")
    return wrong
