"""A server without its routes: the engine, its numbers, and what is done every second."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from nextsession.errors import ConfigError, NextSessionError, StoreError
from nextsession.index.kept import Kind
from nextsession.serving.arms import Arm, Role
from nextsession.serving.bell import Bell
from nextsession.serving.engine import Engine
from nextsession.serving.indexing import Indexing
from nextsession.serving.learning import Learner
from nextsession.serving.metrics import Metrics, Snapshot, added
from nextsession.serving.security import Buckets, Keys
from nextsession.serving.served import Served
from nextsession.serving.together import Together

log = logging.getLogger(__name__)

_MODELS = "models in use"
_HOUR, _DAY = 3600.0, 86_400.0
_JUMP = 60_000
"""A clock that gains or loses so much (ms) from one second to the next was set."""
_FRESH = 10_000  # ms for which the numbers of another worker count


@dataclass(frozen=True)
class ServerSettings:
    """How a server behaves towards those who ask."""

    largest_body: int = 1_000_000
    """Bytes."""
    slowest_body: float = 10.0
    """Seconds that a body may take to arrive."""
    in_flight: int = 512
    """Requests that are answered at once; more are sent away."""
    patience: float = 5.0
    """Seconds to wait until an event is durable."""
    rate: float | None = None
    """Requests a second, for each key or address; None: no limit."""
    origins: tuple[str, ...] = ()
    """Whose pages may ask from a browser; our own always may."""
    hosts: tuple[str, ...] | None = None
    """Names under which the server may be addressed; None: any."""
    retention: int | None = None
    """How long (ms) events are kept in the log; None: until they are erased."""
    access_log: bool = False
    """Write a line for every request, not only for those that fail."""


class _Wanted(msgspec.Struct, frozen=True):
    """What all workers should serve in one arm."""

    place: str
    version: str
    weight: float
    role: Role = "answer"


class _Agreed(msgspec.Struct, frozen=True):
    """What all workers should serve that were started with the same artifacts and weights."""

    started: dict[str, tuple[str, float, Role]]
    arms: dict[str, _Wanted]


@dataclass
class Server:
    """Everything a worker process has."""

    engine: Engine
    load: Callable[[str], Served]
    """Loads an artifact by its place."""
    clock: Callable[[], int]
    """The instant, in ms: nothing else here reads a clock."""
    steady: Callable[[], float] = time.monotonic
    """Seconds since some instant, by a clock that nobody sets."""
    models: tuple[Path, ...] = ()
    """Folders that artifacts may be loaded from."""
    keys: Keys = field(default_factory=Keys)
    settings: ServerSettings = field(default_factory=ServerSettings)
    numbers: Path | None = None
    """A folder in which workers tell one another their numbers."""
    index: Kind | None = None
    """The index that is built for models that come without; None: only what is asked for."""
    learner: Learner = None  # type: ignore[assignment]
    """Tells the models what happens; if not given, one that never does."""
    metrics: Metrics = field(default_factory=Metrics)
    in_flight: int = 0
    ready: bool = False

    def __post_init__(self) -> None:
        """Note when it began."""
        self.started = self.clock()
        self.together, self.bell = Together(self.engine), Bell()
        self.indexing = Indexing(self.engine.arms, self.index)
        self.learner = self.learner or Learner(self.engine.arms, self.engine.store, every=0)
        self.buckets = Buckets(self.settings.rate)
        self._began_with = {arm.name: (arm.served.artifact, arm.weight, arm.role) for arm in self.engine.arms}
        self._agreed: str | None = None
        self._swept, self._calm = self.steady(), 0.0
        self._ahead = self.started - 1000 * self._swept
        self._changing = asyncio.Lock()

    # -- models ---------------------------------------------------------------------------------

    def artifact(self, wanted: str) -> str:
        """Return the place of an artifact, if it lies where artifacts may lie.

        Raises:
            ConfigError: It does not.
        """
        try:
            real = Path(wanted).resolve()
        except (OSError, ValueError):  # a null byte, a loop of links
            raise ConfigError(f"{wanted!r} is no place that an artifact could be.") from None
        if not any(real.is_relative_to(folder.resolve()) for folder in self.models):
            raise ConfigError(f"Artifacts must lie in one of the folders that the server was given, got {wanted!r}.")
        return str(real)

    async def change(self, act: Callable[[], Any]) -> Any:
        """Change the arms here, one change at a time, and let the other workers follow.

        Raises:
            NextSessionError: The change was refused.
        """
        async with self._changing:
            found = await asyncio.to_thread(act)
            await asyncio.to_thread(self._tell)
            return found

    def _tell(self) -> None:
        wanted = {
            arm.name: _Wanted(arm.served.place, arm.served.artifact, arm.weight, arm.role) for arm in self.engine.arms
        }
        text = msgspec.json.encode(_Agreed(self._began_with, wanted)).decode()
        try:
            self.engine.store.note(_MODELS, text)
            self._agreed = text
        except StoreError as error:
            log.warning("Other workers could not be told of the models: %s", error)

    def follow(self) -> None:
        """Do what another worker was told of models, unless it was started with others than this one."""
        text = self.engine.store.noted(_MODELS)
        if text is None or text == self._agreed:
            return
        agreed, now, arms = msgspec.json.decode(text, type=_Agreed), self.clock(), self.engine.arms
        if agreed.started != self._began_with:
            self._agreed = text
            return
        wanted = agreed.arms
        for name, want in wanted.items():
            have: Arm | None = next((arm for arm in arms if arm.name == name), None)
            if have is None or have.served.artifact != want.version:
                if have is not None and have.previous and have.previous[0].version == want.version:
                    arms.roll_back(name, now=now)
                    continue
                with contextlib.suppress(NextSessionError):  # it is in the list of what was refused
                    arms.load(name, want.place, lambda place=want.place: self.load(place), now=now)  # type: ignore[misc]
        known = {arm.name for arm in arms} & set(wanted)
        arms.weigh({name: wanted[name].weight for name in known}, {name: wanted[name].role for name in known})
        self._agreed = text

    # -- every second ---------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Do what is done every second, and let models learn beside it, until told to stop."""
        self.ready = True
        await asyncio.gather(self._each_second(self.second, stop), self._each_second(self.learn, stop))
        self.ready = False

    async def _each_second(self, act: Callable[[], None], stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await asyncio.to_thread(act)
            except StoreError as error:  # it says itself what is wrong, and goes on trying
                log.warning("What other workers did is not known: %s", error)
            except Exception:  # a bad second must not be the last
                log.exception("Something that is done every second failed.")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1.0)

    def learn(self) -> None:
        """Tell the models what happened, if it is time."""
        self.learner.learn(self.clock())

    def second(self) -> None:
        """Follow the other workers, close a second of numbers, and sweep once an hour."""
        now = self.clock()
        self._measure()
        self.metrics.tick(now)
        self._publish(now)
        self.engine.refresh(now)
        self.follow()
        self.indexing.look()
        if self._may_sweep(now):
            self.engine.store.sweep(now, retention=self.settings.retention)

    def _may_sweep(self, now: int) -> bool:
        """Say whether to sweep: an hour after the last time, a day after the clock was set, lest it was set wrong."""
        steady = self.steady()
        ahead = now - 1000 * steady
        if abs(ahead - self._ahead) > _JUMP:
            log.warning(
                "The clock was set by %+.0f s; no visitor is forgotten for a day.", (ahead - self._ahead) / 1000
            )
            self.metrics.count("clock_jumps_total")
            self._calm = steady + _DAY
        self._ahead = ahead
        if steady < self._calm or steady - self._swept < _HOUR:
            return False
        self._swept = steady
        return True

    def _measure(self) -> None:
        health = self.engine.store.health()
        self.metrics.gauge("store_ok", float(health["ok"]))
        self.metrics.gauge("store_waiting", float(health["waiting"]))
        self.metrics.gauge("store_bytes", float(health.get("bytes", 0)))
        self.metrics.gauge("in_flight", float(self.in_flight))
        self.metrics.now.counters["process_cpu_seconds_total"] = time.process_time()
        self.metrics.now.counters['cpu_seconds_total{stage="store"}'] = float(health.get("cpu", 0.0))
        self.metrics.now.counters["models_refused_total"] = len(self.engine.arms.refused)
        self.metrics.now.counters["index_failures_total"] = self.indexing.failures
        for row in self.indexing.health():
            series = f'{{arm="{row["arm"]}"}}'
            self.metrics.gauge(f"index_recall{series}", row["recall"])
            self.metrics.gauge(f"index_building{series}", float(row["building"]))
        self.metrics.gauge("shadow_waiting", float(self.engine.shadows.waiting))
        for name, tally in list(self.engine.shadows.tallies.items()):
            series, now = f'{{arm="{name}"}}', self.metrics.now
            for what in ("answers", "failures", "dropped", "overlap"):
                now.counters[f"shadow_{what}_total{series}"] = getattr(tally, what)
            now.histograms[f"shadow_seconds{series}"] = list(tally.buckets)
            now.sums[f"shadow_seconds{series}"] = tally.seconds
        for name, learnt in self.learner.learnt.items():
            series, now = f'{{arm="{name}"}}', self.metrics.now
            now.counters[f"learnt_total{series}"] = learnt.times
            now.counters[f"learn_failures_total{series}"] = learnt.failures
            now.counters[f"learn_seconds_total{series}"] = learnt.total
            self.metrics.gauge(f"learnt_events{series}", learnt.events)
            if learnt.at is not None:
                self.metrics.gauge(f"learnt_age_seconds{series}", (self.clock() - learnt.until) / 1000)
        for arm in self.engine.arms if self.engine.exploring.share else ():
            cold = self.engine.exploring.cold(arm.served)
            self.metrics.gauge(f'cold_items{{arm="{arm.name}"}}', float(np.count_nonzero(cold)))
        for arm in self.engine.arms:
            self.metrics.gauge(f'coverage{{arm="{arm.name}"}}', self.engine.coverage(arm))

    def close(self) -> None:
        """End what works beside the answers, and make everything durable."""
        self.indexing.close()
        self.engine.close()

    # -- numbers --------------------------------------------------------------------------------

    def _publish(self, now: int) -> None:
        if self.numbers is None:
            return
        told = msgspec.msgpack.encode((now, self.metrics.now, self.metrics.minute()))
        scratch = self.numbers / f".{os.getpid()}"
        try:
            scratch.write_bytes(told)
            scratch.replace(self.numbers / f"{os.getpid()}.numbers")
        except OSError as error:  # a full disk is no reason to do nothing of what comes after
            log.warning("Other workers could not be told the numbers: %s", error)

    def all_numbers(self) -> tuple[Snapshot, Snapshot, int]:
        """Return the numbers of all workers since they began and of the last minute, and how many workers there are."""
        now = self.clock()
        since, minute = [self.metrics.now], [self.metrics.minute()]
        for file in self.numbers.glob("*.numbers") if self.numbers is not None else ():
            if file.stem == str(os.getpid()):
                continue
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                at, one, lately = msgspec.msgpack.decode(file.read_bytes(), type=tuple[int, Snapshot, Snapshot])
                if now - at < _FRESH:
                    since.append(one)
                    minute.append(lately)
        return added(since), added(minute), len(since)

    def problems(self) -> Mapping[str, str]:
        """Return why the server is not ready; empty if it is."""
        found = {}
        if not self.ready:
            found["server"] = "it is starting or stopping"
        return found
