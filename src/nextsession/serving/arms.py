"""Which model answers whom: arms, their weights, versions before, and what was refused."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from nextsession.errors import ConfigError, NextSessionError, UnknownNameError, suggestion
from nextsession.serving.served import Served

KEPT = 2
"""Versions before the current one that stay in memory, so that going back takes one call."""
_REFUSED = 20


@dataclass(frozen=True)
class Arm:
    """One way of answering, under a name."""

    name: str
    served: Served
    weight: float
    loaded_at: int
    previous: tuple[Served, ...] = ()
    """Newest first."""


@dataclass(frozen=True)
class Refusal:
    """A model that was not let in."""

    place: str
    reason: str
    at: int


class Arms:
    """All arms of a server.  Whoever holds an `Arm` answers by it to the end, whatever is swapped meanwhile."""

    def __init__(self, arms: Mapping[str, tuple[Served, float]], *, now: int, salt: str = "nextsession") -> None:
        """Start with at least one arm.

        Raises:
            ConfigError: There is none, or a weight is below 0 or all are 0.
        """
        if not arms:
            raise ConfigError("A server needs at least one model; name an artifact.")
        self._salt = salt
        self._lock = threading.Lock()
        self._arms = {name: Arm(name, served, weight, now) for name, (served, weight) in arms.items()}
        self._check({name: arm.weight for name, arm in self._arms.items()})
        self.refused: list[Refusal] = []

    def __iter__(self) -> Iterator[Arm]:
        """Give the arms in the order in which they were named."""
        return iter(self._arms.values())

    def of(self, who: str) -> Arm:
        """Return the arm of a visitor: always the same, in the shares of the weights."""
        arms = self._arms
        if len(arms) == 1:
            return next(iter(arms.values()))
        hashed = hashlib.blake2b(f"{self._salt}\x00{who}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        point = int.from_bytes(hashed, "big") / 2**64 * sum(arm.weight for arm in arms.values())
        for arm in arms.values():
            point -= arm.weight
            if point < 0:
                return arm
        return next(arm for arm in reversed(arms.values()) if arm.weight > 0)  # what rounding left over

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

    def load(self, name: str, place: str, load: Callable[[], Served], *, now: int) -> Arm:
        """Load another model and let it take the place of an arm's; if anything is wrong the old one goes on.

        Args:
            name: The arm; a new name makes an arm of weight 0.
            place: What is loaded, for the list of what was refused.
            load: Loads and checks it.
            now: The instant.

        Raises:
            NextSessionError: It was refused.
        """
        try:
            served = load()
        except NextSessionError as error:
            self.refused = [*self.refused, Refusal(place, str(error), now)][-_REFUSED:]
            raise
        with self._lock:
            old = self._arms.get(name)
            if old is None:
                arm = Arm(name, served, 0.0, now)
            elif old.served.version == served.version:
                return old
            else:
                arm = replace(old, served=served, loaded_at=now, previous=(old.served, *old.previous)[:KEPT])
            self._arms = {**self._arms, name: arm}
        return arm

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
            self._arms = {**self._arms, name: arm}
        return arm

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Set the shares of arms; those not named keep theirs.

        Raises:
            UnknownNameError: There is no such arm.
            ConfigError: A weight is below 0, or all are 0.
        """
        with self._lock:
            for name in weights:
                self.named(name)
            self._check({name: arm.weight for name, arm in self._arms.items()} | dict(weights))
            self._arms = {
                name: replace(arm, weight=float(weights.get(name, arm.weight))) for name, arm in self._arms.items()
            }

    def _check(self, weights: Mapping[str, float]) -> None:
        for name, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"The weight of an arm must be a number from 0, got {weight!r} for {name!r}.")
        if not sum(weights.values()):
            raise ConfigError("At least one arm must have a weight above 0.")
