"""Questions that arrive at one moment are answered together; one that comes alone does not wait for others."""

import asyncio

from nextsession.serving.engine import Asked, Engine
from nextsession.serving.questions import Question

_MOST = 32
"""Questions that are answered at once: more would keep the first of them waiting, and gain little."""


class Together:
    """Collects what the event loop finds to be there in one turn; only its thread may ask."""

    def __init__(self, engine: Engine) -> None:
        """Take who answers."""
        self._engine = engine
        self._waiting: list[tuple[Question, int, asyncio.Future[Asked]]] = []

    def ask(self, question: Question, now: int) -> "asyncio.Future[Asked]":
        """Return an answer to be; it is there one turn of the loop later."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._answer)
        answer: asyncio.Future[Asked] = loop.create_future()
        self._waiting.append((question, now, answer))
        return answer

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._answer)
        answers = self._engine.ask_all([(question, now) for question, now, _ in waiting])
        for (_, _, answer), found in zip(waiting, answers, strict=True):
            if answer.cancelled():
                continue
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)
