"""nextsession: `Recommender.fit` from beginning to end, one epoch; nothing is left out of its time.

A small fit before it compiles the kernels and loads the libraries.  `--steps` says how many batches of histories the
log has; all of them are trained on once.
"""

from collections.abc import Mapping
from typing import Any

import meter
import numpy as np
from meter import BATCH, LONGEST, MASKED, NEGATIVES, SESSION_BATCH, SESSION_WIDTH, WIDTH, Histories, Task, parameters

from nextsession import SessionLog, Vocabulary, create

SAMPLED = {"kind": "uniform", "n": NEGATIVES, "per": "query"}
LONG: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sasrec-ce": ("sasrec", {}),
    "sasrec-bf16": ("sasrec", {"precision": "bfloat16"}),
    "sasrec-3000": ("sasrec", {"preset": "sasrec+3000"}),
    "sasrec-sampled": ("sasrec", {"loss": {"kind": "sampled_softmax", "negatives": SAMPLED}}),
    "sasrec-bce": ("sasrec", {"loss": {"kind": "bce"}}),
    "gsasrec": ("sasrec", {"loss": {"kind": "gbce", "t": 0.75, "negatives": SAMPLED}}),
    "esasrec": ("sasrec", {"preset": "esasrec", "loss": {"kind": "sampled_softmax", "negatives": SAMPLED}}),
    "bert4rec": ("bert4rec", {"masked": MASKED, "last_only": 0.0}),
    "gru": ("gru", {"tied": False}),
    "hstu": ("hstu", {"preset": "hstu-softmax", "time": "none"}),
    "hstu-time": ("hstu", {"preset": "hstu-softmax"}),
}
SHORT: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "srgnn": ("srgnn", {}),
    "narm": ("narm", {"width": SESSION_WIDTH}),
    "stamp": ("stamp", {}),
}


def log_of(histories: Histories) -> SessionLog:
    """One session a history, a minute between two events: the files have no times."""
    lengths = np.diff(histories.offsets)
    place = np.arange(len(histories.items)) - np.repeat(histories.offsets[:-1], lengths)
    return SessionLog(
        (histories.items - 1).astype(np.int32),
        60_000 * place,
        histories.offsets,
        np.arange(len(histories) + 1),
        Vocabulary(np.arange(1, histories.n_items + 1)),
    )


def fitted(task: Task, name: str, settings: Mapping[str, Any], histories: Histories, positions: int) -> dict[str, Any]:
    few = log_of(histories.some(32))
    create(name, **settings).fit(few)
    log = log_of(histories)
    model = create(name, **settings)
    task.meter.whole(lambda: model.fit(log), positions)
    return {
        "parameters": parameters(model.network_.requires_grad_(True)),
        "layers": getattr(model.config, "layers", None),
        "heads": getattr(model.config, "heads", None),
        "width": model.config.dim,
        "loss": model.config.loss.kind,
    }


def caser(task: Task) -> dict[str, Any]:
    """Train on every window of a subset: eight events that follow each other, or all of a shorter history."""
    batches = task.histories.some(BATCH * task.meter.steps)
    windows = int(np.maximum(np.diff(batches.offsets) - 7, 1).sum())
    return fitted(task, "caser", {"preset": "caser_2018", "epochs": 1}, batches, windows)


def long(name: str):
    model, settings = LONG[name]

    def run(task: Task) -> dict[str, Any]:
        histories = task.histories.some(BATCH * task.meter.steps)
        width = {} if model == "hstu" else {"dim": WIDTH}
        common = {"epochs": 1, "batch_size": BATCH, "max_length": LONGEST, **width}
        if model == "bert4rec":
            positions = int(np.minimum(np.diff(histories.offsets), LONGEST).sum())
        else:
            positions = histories.targets()
        return fitted(task, model, {**settings, **common}, histories, positions)

    return run


def short(name: str):
    model, settings = SHORT[name]

    def run(task: Task) -> dict[str, Any]:
        whole = task.histories
        count = SESSION_BATCH * task.meter.steps * len(whole) // whole.targets()
        histories = whole.some(count)
        common = {"epochs": 1, "batch_size": SESSION_BATCH, "dim": SESSION_WIDTH}
        return fitted(task, model, {**settings, **common}, histories, histories.targets())

    return run


if __name__ == "__main__":
    models = {name: long(name) for name in LONG} | {name: short(name) for name in SHORT}
    meter.run({**models, "caser": caser}, ("nextsession",))
