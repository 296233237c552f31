"""What reading sessions instead of events saves: `python benchmarks/sessionrec.py [--save FILE]`.

Steps of training, CPU-seconds: people with the same number of events each, in sessions of one to fifty, most
of them shown and ignored.  `sessionrec` (HSTU over sessions) beside `hstuplus` (HSTU over every event that was
shown), equally wide and deep, with the same loss over the same drawn items, and beside its own item-level twin.
Each runs in a process of its own, whose peak memory is given.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Vocabulary
from nextsession.neural import NeuralRecommender
from nextsession.nn.negatives import ItemStatistics
from nextsession.registry import model_class
from nextsession.training import start

USERS, EVENTS, ITEMS, WANTED = 64, 400, 10_000, 0.1
"""People in a step, events of each, items, and the share of events that were wanted."""
SESSIONS = (1, 2, 5, 10, 20, 50)
"""Events of a session."""
STEPS = 4

_LOSS = {"kind": "sampled_softmax", "negatives": {"kind": "uniform", "n": 512, "per": "batch"}}
_SIZE = {"dim": 64, "layers": 4, "heads": 2, "loss": _LOSS, "batch_size": USERS, "epochs": 1}
MODELS = {
    "sessionrec": ("sessionrec", {**_SIZE, "max_length": EVENTS, "alpha": 0.0, "open": "never", "ignored_only": True}),
    "sessionrec, items": (
        "sessionrec",
        {**_SIZE, "max_length": EVENTS, "alpha": 0.0, "open": "never", "ignored_only": True, "tokens": "items"},
    ),
    "hstuplus": ("hstuplus", {**_SIZE, "max_length": EVENTS, "shown": 0, "targets": "next-wanted"}),
}


def log_of(session: int) -> SessionLog:
    """Return people whose sessions hold so many events, a second apart, and are an hour apart."""
    rng = np.random.default_rng(session)
    sessions = EVENTS // session
    labels = (rng.random(USERS * EVENTS) < WANTED).astype(np.int8)
    labels.reshape(-1, session)[:, 0] |= np.int8(session > 1)
    within = np.arange(EVENTS)
    times = 1000 * within + 3_600_000 * (within // session)
    return SessionLog(
        items=rng.integers(ITEMS, size=USERS * EVENTS).astype(np.int32),
        times=np.tile(times, USERS),
        session_offsets=offsets_of(np.full(USERS * sessions, session)),
        user_offsets=offsets_of(np.full(USERS, sessions)),
        vocabulary=Vocabulary(np.arange(ITEMS)),
        labels=labels,
    )


def measure(name: str, session: int) -> dict[str, object]:
    """Return what steps of one model cost."""
    torch.set_num_threads(1)
    kind, settings = MODELS[name]
    log = log_of(session)
    model = model_class(kind)(**settings)
    assert isinstance(model, NeuralRecommender)
    model.fit(log)  # compiles the loops, and builds the network anew
    counts = torch.from_numpy(np.bincount(log.items[log.labels == 1], minlength=ITEMS).astype(np.float32))
    rows, statistics = model._rows(log), ItemStatistics(counts)
    network = model.network_.train().requires_grad_(True)
    state = start(network, model.config)
    taken = []
    for step in range(STEPS):
        begun = time.process_time()
        torch.manual_seed(step)
        examples = network.examples(rows.batch(np.arange(len(rows)), np.random.default_rng(step)))
        model._loss(examples, network, statistics).backward()
        state.optimiser.step(1e-3)
        taken.append(time.process_time() - begun)
    seconds = min(taken)
    return {
        "model": name,
        "session": session,
        "events": USERS * EVENTS,
        "step, CPU-s": round(seconds, 4),
        "events a CPU-second": round(USERS * EVENTS / seconds),
        "peak MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, help="write the rows as JSON")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "SESSION"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]))))
        return
    rows = []
    for session in SESSIONS:
        for name in MODELS:
            command = [sys.executable, __file__, "--one", name, str(session)]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(rows[-1], flush=True)
    if arguments.save:
        arguments.save.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
