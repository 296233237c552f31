"""Where the checkpoint of a training is, and what it cost so far; read without torch."""

import json
from pathlib import Path


def state_of(folder: Path, name: str) -> Path:
    """Return where the checkpoint of a model is among those of a folder.

    >>> print(state_of(Path("runs/checkpoints"), "sasrec").as_posix())
    runs/checkpoints/sasrec/state
    """
    return folder / name / "state"


def cpu_seconds(state: Path) -> float:
    """Return the CPU-seconds of the training that is kept here, of all its processes; 0 if there is none.

    A damaged checkpoint counts as none: it is refused, with the reason, when training goes on from it.
    """
    try:
        notes = json.loads((state / "manifest.json").read_text(encoding="utf-8"))["notes"]
        return float(notes.get("cpu_seconds", 0.0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0.0
