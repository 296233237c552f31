"""A second process that loads saved models and answers the questions of the contract.

It is started once, when first needed, and serves every model after that: a fresh interpreter for
each would cost more than all other checks together.
"""

import atexit
import functools
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from nextsession.errors import ModelError
from nextsession.recommender import Recommendations, Recommender
from nextsession.registry import load
from nextsession.testing.subjects import questions


def answers_elsewhere(model_class: type[Recommender[Any]], path: Path) -> Recommendations:
    """Load the model saved at `path` in another process, and return what it recommends for `questions()`.

    Raises:
        ModelError: The other process could not load the model, or it is defined where another
            process cannot import it.
    """
    if model_class.__module__ == "__main__" or "<locals>" in model_class.__qualname__:
        raise ModelError(
            f"{model_class.__name__} must stand at the top of a module, so that another process can import it."
        )
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    task = {
        "module": model_class.__module__,
        "class": model_class.__qualname__,
        "path": str(path),
        "sys.path": sys.path,
    }
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    if "error" in answer:
        raise ModelError(f"in another process: {answer['error']}")
    items, scores = np.array(answer["items"], np.int32), np.array(answer["scores"], np.float32)
    return Recommendations(items, scores, load(path, kind=model_class).vocabulary_)


@functools.cache
def _process() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an interrupt from the keyboard is for the first process to answer
    )

    def end() -> None:
        process.communicate()  # closes its input, which ends it

    atexit.register(end)
    return process


def serve() -> None:
    """Answer one line of JSON with another until there are no more."""
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line))
        except Exception as error:  # told to whoever asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    sys.path[:] = task["sys.path"]
    found: Any = importlib.import_module(task["module"])
    for part in task["class"].split("."):
        found = getattr(found, part)
    answer = load(task["path"], kind=found).recommend(questions(), 8)
    return {"items": answer.items.tolist(), "scores": answer.scores.tolist()}
