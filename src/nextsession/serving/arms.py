"""Which model answers whom: arms, their weights, versions before, and what was refused."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from nextsession.errors import ConfigError, NextSessionError, UnknownNameError, suggestion
from nextsession.index.contract import ItemIndex
from nextsession.serving.served import Served

KEPT = 2
"""Versions before the current one that stay in memory, so that going back takes one call."""
_REFUSED = 20
Role: TypeAlias = Literal["answer", "fallback", "shadow"]
"""It answers its share of the visitors, fills lists that others leave short, or is asked what they are, unseen."""

_TASK: dict[Role, str] = {"answer": "answer", "fallback": "fill lists", "shadow": "shadow the others"}


@dataclass(frozen=True)
class Arm:
    """One way of answering, under a name."""

    name: str
    served: Served
    weight: float
    loaded_at: int
    previous: tuple[Served, ...] = ()
    """As they were loaded, newest first."""
    role: Role = "answer"


@dataclass(frozen=True)
class Refusal:
    """A model that was not let in."""

    place: str
    reason: str
    at: int


class Arms:
    """All arms of a server.  Whoever holds an `Arm` answers by it to the end, whatever is swapped meanwhile."""

    def __init__(
        self,
        arms: Mapping[str, tuple[Served, float]],
        *,
        now: int,
        roles: Mapping[str, Role] | None = None,
        salt: str = "nextsession",
    ) -> None:
        """Start with at least one arm that answers.

        Args:
            arms: Models and weights by name.
            now: The instant.
            roles: Of those arms that do not answer; their weights are 0.
            salt: Another gives other visitors to an arm.

        Raises:
            ConfigError: No arm answers, a weight is below 0, or an arm may not have its role.
        """
        if not arms:
            raise ConfigError("A server needs at least one model; name an artifact.")
        self._salt = salt
        self._lock = threading.Lock()
        known = roles or {}
        self._set([Arm(n, served, weight, now, role=known.get(n, "answer")) for n, (served, weight) in arms.items()])
        self.refused: list[Refusal] = []

    def __iter__(self) -> Iterator[Arm]:
        """Give the arms in the order in which they were named."""
        return iter(self._arms.values())

    def of(self, who: str) -> Arm:
        """Return the arm of a visitor: always the same, in the shares of the weights."""
        arms = self._answering
        if len(arms) == 1:
            return arms[0]
        hashed = hashlib.blake2b(f"{self._salt}\x00{who}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        point = int.from_bytes(hashed, "big") / 2**64 * sum(arm.weight for arm in arms)
        for arm in arms:
            point -= arm.weight
            if point < 0:
                return arm
        return arms[-1]  # what rounding left over

    @property
    def fallback(self) -> Arm | None:
        """The arm that fills lists which the others leave short, if there is one."""
        return self._fallback

    @property
    def shadows(self) -> tuple[Arm, ...]:
        """Arms that are asked what others answer, and whose lists nobody sees."""
        return self._shadows

    def named(self, name: str) -> Arm:
        """Return the arm of that name.

        Raises:
            UnknownNameError: There is none.
        """
        arm = self._arms.get(name)
        if arm is None:
            known = ", ".join(self._arms)
            raise UnknownNameError(f"There is no arm {name!r}.{suggestion(name, self._arms)} Arms: {known}.")
        return arm

    def load(self, name: str, place: str, load: Callable[[], Served], *, now: int, role: Role | None = None) -> Arm:
        """Load another model and let it take the place of an arm's; if anything is wrong the old one goes on.

        Args:
            name: The arm; a new name makes an arm of weight 0.
            place: What is loaded, for the list of what was refused.
            load: Loads and checks it.
            now: The instant.
            role: What a new arm is for, None: it answers; an arm that is there must have this role.

        Raises:
            NextSessionError: It was refused.
        """
        try:
            self._may_be(name, role)
            served = load()
        except NextSessionError as error:
            self.refused = [*self.refused, Refusal(place, str(error), now)][-_REFUSED:]
            raise
        with self._lock:
            old = self._arms.get(name)
            if old is None:
                arm = Arm(name, served, 0.0, now, role=role or "answer")
            elif old.served.artifact == served.artifact:
                return old
            else:
                arm = replace(old, served=served, loaded_at=now, previous=(old.served.loaded, *old.previous)[:KEPT])
            self._set({**self._arms, name: arm}.values())
        return arm

    def learn(self, name: str, served: Served) -> bool:
        """Let a model that was told what happened take the place of the same artifact; say whether it did.

        If another artifact has been let in meanwhile, that goes on.
        """
        with self._lock:
            old = self._arms.get(name)
            if old is None or old.served.artifact != served.artifact:
                return False
            self._set({**self._arms, name: replace(old, served=served)}.values())
            return True

    def roll_back(self, name: str, *, now: int) -> Arm:
        """Let the version before answer again; the one that is taken back is forgotten.

        Raises:
            ConfigError: There is no version before.
        """
        with self._lock:
            arm = self.named(name)
            if not arm.previous:
                raise ConfigError(f"The arm {name!r} has had no other model; load one.")
            arm = replace(arm, served=arm.previous[0], previous=arm.previous[1:], loaded_at=now)
            self._set({**self._arms, name: arm}.values())
        return arm

    def weigh(self, weights: Mapping[str, float], roles: Mapping[str, Role] | None = None) -> None:
        """Set the shares of arms, and what they are for; those not named keep theirs.

        Raises:
            UnknownNameError: There is no such arm.
            ConfigError: A weight is below 0, or all are 0, or an arm may not have its role.
        """
        given = roles or {}
        with self._lock:
            for name in (*weights, *given):
                self.named(name)
            self._set(
                [
                    replace(arm, weight=float(weights.get(name, arm.weight)), role=given.get(name, arm.role))
                    for name, arm in self._arms.items()
                ]
            )

    def equip(self, version: str, index: ItemIndex) -> None:
        """Let a version of a model, wherever it is in use, find items by an index from now on."""

        def equipped(served: Served) -> Served:
            return replace(served, index=index) if served.version == version else served

        with self._lock:
            self._set(
                [
                    replace(arm, served=equipped(arm.served), previous=tuple(map(equipped, arm.previous)))
                    for arm in self._arms.values()
                ]
            )

    # -- inside ---------------------------------------------------------------------------------

    def _may_be(self, name: str, role: Role | None) -> None:
        """See before anything is loaded that an arm could have this role."""
        old = self._arms.get(name)
        if old is not None and role not in (None, old.role):
            raise ConfigError(
                f"The arm {name!r} is there to {_TASK[old.role]}; load it under another name, or assign it."
            )
        if old is None and role == "fallback" and self.fallback is not None:
            raise ConfigError(f"The arm {self.fallback.name!r} is the fallback already; load the model for that arm.")

    def _set(self, arms: Iterable[Arm]) -> None:
        """Let arms take the place of all that there were, if they may be so."""
        found = {arm.name: arm for arm in arms}
        for name, arm in found.items():
            if not 0 <= arm.weight < float("inf"):
                raise ConfigError(f"The weight of an arm must be a number from 0, got {arm.weight:g} for {name!r}.")
            if arm.weight and arm.role != "answer":
                raise ConfigError(f"The arm {name!r} is there to {_TASK[arm.role]}: its weight must be 0.")
        fallbacks = [arm for arm in found.values() if arm.role == "fallback"]
        if len(fallbacks) > 1:
            raise ConfigError(f"There can be one fallback, got {' and '.join(repr(arm.name) for arm in fallbacks)}.")
        answering = tuple(arm for arm in found.values() if arm.weight)
        if not answering:
            raise ConfigError("At least one arm must have a weight above 0.")
        self._arms, self._answering, self._fallback = found, answering, next(iter(fallbacks), None)
        self._shadows = tuple(arm for arm in found.values() if arm.role == "shadow")
