"""How threads that write tell the loop of events what is done: once for all that is done at one moment."""

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Any


class Bell:
    """Wakes the loop of events for futures of other threads: once for all that are done at one moment."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._done: deque[tuple[Future[Any], asyncio.Future[Any]]] = deque()
        self._rung = False

    def ring(self, loop: asyncio.AbstractEventLoop, done: "Future[Any]", waiting: "asyncio.Future[Any]") -> None:
        """Pass on what became of a future to one of the loop; any thread may."""
        self._done.append((done, waiting))
        if not self._rung:
            self._rung = True
            (loop.call_soon if is_running(loop) else loop.call_soon_threadsafe)(self._answer)

    def _answer(self) -> None:
        self._rung = False  # who comes from here on rings again
        while self._done:
            done, waiting = self._done.popleft()
            if waiting.done():
                continue
            error = done.exception()
            if error is None:
                waiting.set_result(done.result())
            else:
                waiting.set_exception(error)


def is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Say whether this thread is the one in which a loop runs."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
