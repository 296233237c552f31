"""What an answer costs with torch and compiled: `python benchmarks/runtime.py`.

Networks 64 wide that read 50 events, with little trained weights (what they cost does not depend on them), are
saved and compiled; then each way of serving is a process of its own, which loads the artifact as the server
does, and is asked one history at a time for its query.  `import` is the CPU time until the model is loaded; the
memory is what a process has for itself afterwards (pages that it shares, such as those of mapped files, are not in it).

    python benchmarks/runtime.py --prepare runs/runtime     # fit and compile, if not done yet
    python benchmarks/runtime.py --measure runs/runtime     # measure into benchmarks/results/runtime.json
    python benchmarks/runtime.py --table                    # put the table of these rows into the docs
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "runtime.json"
PAGE = ROOT / "docs" / "decisions" / "0017-networks-without-torch.md"
MARK, END = "<!-- runtime: table -->", "<!-- end of runtime -->"
ITEMS, LENGTH, ROUNDS, EACH = 100_000, 50, 7, 60
MODELS: dict[str, dict[str, Any]] = {
    "sasrec": {},
    "hstu": {"preset": "hstu-softmax", "dim": 64},
    "gru": {},
    "sessionrec": {"layers": 2},
}
COMMON = {"dim": 64, "max_length": LENGTH, "epochs": 1, "batch_size": 64}


def prepare(folder: Path) -> None:
    from nextsession import SessionLog, Vocabulary, create, load
    from nextsession.compiling import compile_model

    rng = np.random.default_rng(0)
    n = 64 * (LENGTH + 1)
    offsets = np.arange(0, n + 1, 17)
    log = SessionLog(
        rng.integers(ITEMS, size=n).astype(np.int32),
        60_000 * np.arange(n),
        offsets,
        np.arange(0, len(offsets), 3),
        Vocabulary(np.arange(ITEMS)),
    )
    for name, settings in MODELS.items():
        place = folder / name
        if not (place / "manifest.json").exists():
            create(name, **{**COMMON, **settings}).fit(log).save(place)
        if not (place / "runtime").exists():
            compile_model(load(place), place)


def asked(place: str, how: str) -> dict[str, Any]:
    """Measure in this process."""
    began = time.process_time()
    if how == "torch":
        from nextsession.registry import load

        model: Any = load(place)
    else:
        from nextsession.runtime.kept import load_runtime

        model = load_runtime(Path(place))
    loaded = time.process_time() - began
    from nextsession import SessionLog

    rng = np.random.default_rng(1)
    found: dict[str, Any] = {"import_cpu_s": round(loaded, 3)}
    at = np.array([model.trained_until_ + 10**9], np.int64)
    for events in (1, LENGTH):
        logs = [
            SessionLog.of_one(
                rng.integers(ITEMS, size=events).astype(np.int32),
                model.trained_until_ + 60_000 * np.arange(events),
                np.arange(0, events + 1, 10) if events > 1 else np.array([0, 1]),
                model.vocabulary_,
            )
            for _ in range(EACH)
        ]
        for log in logs:
            model._score(log, at)
        times = []
        for _ in range(ROUNDS):
            began = time.process_time()
            for log in logs:
                model._score(log, at)
            times.append((time.process_time() - began) / EACH)
        found[f"us_{events}"] = round(1e6 * statistics.median(times), 1)
    lines = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    own = sum(int(lines[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
    return {**found, "own_mb": round(own / 1024, 1), "torch": "torch" in sys.modules}


def measure(folder: Path) -> None:
    rows = []
    for name in MODELS:
        for how in ("torch", "compiled"):
            command = [sys.executable, __file__, "--one", str(folder / name), "--how", how]
            found = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
            rows.append({"model": name, "how": how, **json.loads(found.stdout)})
            print(rows[-1], flush=True)
    RESULT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | served by | 50 events, us CPU | 1 event, us CPU | import and load, CPU-s | own memory, MB |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    lines += [
        f"| {r['model']} | {'torch' if r['how'] == 'torch' else 'ONNX Runtime'} | {r[f'us_{LENGTH}']:.0f} | "
        f"{r['us_1']:.0f} | {r['import_cpu_s']:.2f} | {r['own_mb']:.0f} |"
        for r in rows
    ]
    return "\n".join(lines)


def page(text: str, rows: list[dict[str, Any]]) -> str:
    """Return the page with the table of the rows."""
    before, rest = text.split(MARK)
    return f"{before}{MARK}\n{table(rows)}\n{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prepare", type=Path)
    parser.add_argument("--measure", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--how", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(asked(args.one, args.how)))
    if args.prepare:
        prepare(args.prepare)
    if args.measure:
        measure(args.measure)
    if args.table:
        rows = json.loads(RESULT.read_text(encoding="utf-8"))
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
