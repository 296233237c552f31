"""What a step of training and an answer cost as catalogues and histories grow: `python benchmarks/memory.py`.

Each point is a process of its own, split off from one that has loaded the libraries, so that its peak
of memory is its own.  The log is random: 3,200 events to learn in a step, in histories of
`max_length` events and one; every item is as likely as the others.  Of a few epochs of one step each,
the first is not counted.  An answer is that of a model that was saved and loaded in another process:
the best of some questions of one history, the 20 best of all items.

    python benchmarks/memory.py            # measure what is missing in benchmarks/results/memory.json
    python benchmarks/memory.py --table    # put the tables of these rows into the docs; plots.py draws them
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nextsession import SessionLog, Vocabulary, create, load, registry
from nextsession.config import Runtime

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "memory.json"
PAGE = ROOT / "docs" / "explanation" / "neural-speed.md"
MARK, END = "<!-- memory: table -->", "<!-- end of memory -->"

EVENTS, DIM, EPOCHS, MOST = 3_200, 64, 3, 60.0
"""Events of a step; width of vectors; epochs of a step each; CPU-seconds beyond which a point is left out."""
CPU_SECONDS = 3
"""Column of the curve of training."""
ITEMS, LENGTHS = (1_000, 10_000, 100_000, 1_000_000), (50, 200, 800, 3_200)
SHARED = {"kind": "sampled_softmax", "negatives": {"kind": "uniform", "n": 512, "per": "batch"}}
MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sasrec, all items": ("sasrec", {}),
    "sasrec, 512 shared": ("sasrec", {"loss": SHARED}),
    "sasrec, 512 shared, sparse": ("sasrec", {"loss": SHARED, "sparse": True}),
    "hstu, all items": ("hstu", {"preset": "hstu-softmax"}),
    "gru4rec, 2048 and the batch": ("gru4rec", {}),
}


def log_of(n_items: int, length: int) -> SessionLog:
    rows = EVENTS // length
    events = rows * (length + 1)
    items = np.random.default_rng(0).integers(n_items, size=events).astype(np.int32)
    offsets = np.arange(0, events + 1, length + 1)
    return SessionLog(items, 60_000 * np.arange(events), offsets, np.arange(rows + 1), Vocabulary(np.arange(n_items)))


def settings(model: str, length: int, epochs: int) -> tuple[str, dict[str, Any]]:
    name, given = MODELS[model]
    if name == "gru4rec":
        return name, {"epochs": epochs, "layers": (DIM,), "batch_size": EVENTS // length}
    return name, {**given, "epochs": epochs, "dim": DIM, "batch_size": EVENTS // length, "max_length": length}


def trained(model: str, n_items: int, length: int, folder: Path) -> dict[str, float]:
    name, given = settings(model, length, EPOCHS)
    found = create(name, **given).fit(log_of(n_items, length), runtime=Runtime(device="cpu"))
    seconds = found.curve_[1:, CPU_SECONDS].min()
    peak = peak_mb()
    found.save(folder / "model")
    return {"train_peak_mb": peak, "step_cpu_s": round(float(seconds), 4)}


def answered(model: str, n_items: int, length: int, folder: Path) -> dict[str, float]:
    found = load(folder / "model")
    question = log_of(n_items, length).take(np.array([0]))
    taken = []
    for _ in range(6):
        start = time.process_time()
        found.recommend(question, 20)
        taken.append(time.process_time() - start)
    return {"answer_peak_mb": peak_mb(), "answer_cpu_ms": round(1000 * min(taken), 2)}


def idle(*_: object) -> dict[str, float]:
    return {"peak_mb": peak_mb()}


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def split_off(work: Callable[..., dict[str, float]], *given: Any) -> dict[str, float]:
    """Return what `work` finds in a process of its own; nothing if memory did not suffice."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.write(writing, json.dumps(work(*given)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else {}


def points() -> list[tuple[str, int, int]]:
    """Return model, items and length of each point, the cheapest first."""
    found = [(model, n_items, LENGTHS[0]) for model in MODELS for n_items in ITEMS]
    lengthened = [model for model in MODELS if not model.startswith("gru4rec") and "sparse" not in model]
    found += [(model, ITEMS[1], length) for model in lengthened for length in LENGTHS[1:]]
    return sorted(found, key=lambda point: point[1] * (20 if "all items" in point[0] else 1) + 100 * point[2])


def measure() -> None:
    torch.set_num_threads(1)
    for name, _ in MODELS.values():
        registry.model_class(name)  # its libraries are loaded before a process splits off
    rows = json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if RESULT.exists() else []
    done = {(row["model"], row["items"], row["length"]): row for row in rows}
    facts = {"events": EVENTS, "dim": DIM, "threads": 1, "libraries_mb": split_off(idle)["peak_mb"]}
    for model, n_items, length in points():
        if (model, n_items, length) in done:
            continue
        row: dict[str, Any] = {"model": model, "items": n_items, "length": length}
        smaller = done.get((model, n_items // 10, length), {}).get("step_cpu_s", 0.0)
        if "all items" in model and smaller * 10 * EPOCHS > MOST:
            row["left_out"] = f"would take more than {MOST:g} CPU-s"
        else:
            with tempfile.TemporaryDirectory() as folder:
                for work in (trained, answered):
                    row |= split_off(work, model, n_items, length, Path(folder))
        done[model, n_items, length] = row
        print(*row.values(), sep="\t", flush=True)
        RESULT.write_text(json.dumps({**facts, "rows": list(done.values())}, indent=1) + "\n", encoding="utf-8")


def tables(found: Mapping[str, Any]) -> str:
    rows = found["rows"]
    parts = []
    for sweep, fixed, value, title in (
        ("items", "length", LENGTHS[0], f"Items, with histories of {LENGTHS[0]} events"),
        ("length", "items", ITEMS[1], f"Length of histories, with {ITEMS[1]:,} items"),
    ):
        some = [row for row in rows if row[fixed] == value]
        values = sorted({row[sweep] for row in some})
        head = ["model", *(f"{value:,}" for value in values)]
        lines = [head, ["---", *["--:"] * len(values)]]
        for model in MODELS:
            by_value = {row[sweep]: row for row in some if row["model"] == model}
            if len(by_value) > 1:
                lines.append([model, *(cell(by_value.get(value)) for value in values)])
        parts.append(f"**{title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def cell(row: Mapping[str, Any] | None) -> str:
    if row is None or "step_cpu_s" not in row:
        return "" if row is None else "left out" if "left_out" in row else "no memory"
    return (
        f"{row['step_cpu_s']:.3g} s, {row['train_peak_mb']:,} MB; "
        f"{row['answer_cpu_ms']:.3g} ms, {row['answer_peak_mb']:,} MB"
    )


def write() -> None:
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    before, mark, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    if mark:
        after = f"{before}{MARK}\n{tables(found)}\n{END}{rest.partition(END)[2]}"
        PAGE.write_text(after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    if parser.parse_args().table:
        write()
    else:
        measure()


if __name__ == "__main__":
    main()
