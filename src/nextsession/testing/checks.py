"""Run the promises of `nextsession.testing.promises`, and report which a model keeps.

A promise is a function `check_<name>(subject)` whose docstring is the promise.  A model that
cannot keep one says so in `exemptions = {"<name>": "<reason>"}`; exemptions are strict, so a
promise that turns out to be kept may not be exempted.
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
        return (self.broken is None) == (self.exempted is None)

    def __str__(self) -> str:
        """Say who broke which promise, and how it showed."""
        if self.fine:
            return f"{self.subject}: {self.name}: kept" + (
                f" from being held: {self.exempted}" if self.exempted else ""
            )
        if self.broken is None:
            return f"{self.subject}: {self.name}: kept after all; remove the exemption ({self.exempted})."
        return f"{self.subject}: {self.name}: {self.promise} Found: {self.broken}"


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
    """Hold a model to every promise.

    Raises:
        ModelError: Promises are broken (each is named, with what was found), or an exemption is
            of an unknown promise or of one that is kept.
    """
    known = [name for name, _ in checks()]
    for name in model_class.exemptions:
        if name not in known:
            raise ModelError(f"{model_class.name} exempts an unknown promise {name!r}.{suggestion(name, known)}")
    wrong = [str(outcome) for outcome in outcomes(model_class, progress=progress) if not outcome.fine]
    if wrong:
        raise ModelError("\n".join(wrong))
