"""Training throughput side by side with peers: positions a CPU-second, one thread.

python benchmarks/peers/run.py --create WORK                     # environments of the peers in WORK/environments
python benchmarks/peers/run.py --work WORK --data DATA           # measure; goes on where it was stopped
python benchmarks/peers/run.py --table                           # write the tables of the docs from the results

WORK/sources holds clones of the code bases that are not on PyPI (README.md names them).  DATA is a folder with
`ml-1m/ml1m_sasrec_order.parquet` and `diginetica_gce/train_sessions.parquet`; `$NEXTSESSION_DATA` unless given.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from cases import CASES, GROUPS, OURS, Case
from tables import write

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "peers.json"
ENVIRONMENTS = ("torch", "rectools", "recbole")
SESSIONS = 20_000
"""Sessions of Diginetica that are kept, drawn at random; the catalogue and the longest session stay."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
LARGE = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
"""Memory of large tensors is kept by the process instead of being given back and taken anew in every step."""
VARIANTS = {"shipped": ({}, "highest"), "fixes": (LARGE, "medium")}
"""Environment, and precision of float32 products: "medium" means another library here, with the same float32."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--create", type=Path, metavar="WORK", help="make the environments of the peers and stop")
    parser.add_argument("--base", default=sys.executable, help="the Python 3.11 or 3.12 that they are made with")
    parser.add_argument("--work", type=Path, help="folder of environments and sources")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="an environment elsewhere")
    parser.add_argument("--data", type=Path, default=os.environ.get("NEXTSESSION_DATA"), help="folder of data sets")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the rows go")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each, interleaved")
    parser.add_argument("--only", nargs="*", default=[], help="groups, peers or models")
    parser.add_argument("--steps", type=int, help="of every case: a trial, too short to mean anything")
    parser.add_argument("--table", action="store_true", help="write the tables and stop")
    parser.add_argument("--check", action="store_true", help="exit code 1 if the tables are not what the rows say")
    given = parser.parse_args()
    if given.create:
        create(given.create, given.base)
    elif given.table or given.check:
        sys.exit(write(read(given.out), check=given.check))
    elif given.work is None or given.data is None:
        parser.error("--work and --data are needed to measure")
    else:
        measure(given)


def create(work: Path, base: str) -> None:
    for name in ENVIRONMENTS:
        place = work / "environments" / name
        subprocess.run([base, "-m", "venv", place], check=True)
        subprocess.run(
            [place / "bin" / "pip", "install", "-q", "-r", HERE / "requirements" / f"{name}.txt"], check=True
        )
        print(f"{name}: {place}")


def measure(given: argparse.Namespace) -> None:
    pythons = {name: str(given.work / "environments" / name / "bin" / "python") for name in ENVIRONMENTS}
    pythons |= {OURS: sys.executable} | dict(pair.split("=", 1) for pair in given.python)
    chosen = [case for case in CASES if not given.only or {case.group, case.peer, case.model} & set(given.only)]
    if given.steps:
        chosen = [replace(case, steps=given.steps, warm_up=1) for case in chosen]
    rows = read(given.out)
    data = prepared(given.data, given.work / "data")
    for repeat in range(given.repeats):
        for case in chosen:
            for variant in VARIANTS:
                row = rows.setdefault(f"{case.key}/{variant}", new(case, variant))
                if len(row["measurements"]) > repeat:
                    continue
                found = one(case, variant, pythons[case.environment], data[case.data], given.work / "sources")
                add(row, found)
                keep(rows, given.out)


def one(case: Case, variant: str, python: str, data: Path, sources: Path) -> dict:
    """Run an adapter in a process of its own and return what it reports, or why it failed."""
    environment, precision = VARIANTS[variant]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "PYTHON"))}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:  # some write logs where they run
        done = subprocess.run(
            [
                *(python, str(HERE / case.script), case.model, "--data", str(data.resolve())),
                *("--sources", str(sources.resolve()), "--steps", str(case.steps)),
                *("--warm-up", str(case.warm_up), "--precision", precision),
            ],
            env={**kept, **ONE_THREAD, **environment, "CUDA_VISIBLE_DEVICES": ""},
            cwd=folder,
            capture_output=True,
            text=True,
        )
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines and lines[-1].startswith("{"):
        found = {**json.loads(lines[-1]), "load": round(load, 1)}
        said = (
            f"{found['positions'] / found['cpu_s']:>9,.0f} positions/CPU-s, {found['peak_mb']:,} MB, {found['cpu_s']} s"
        )
    else:
        reason = [line for line in done.stderr.strip().splitlines() if line][-1:] or [f"exit code {done.returncode}"]
        found, said = {"failure": reason[0]}, reason[0]
    print(f"{case.key:58} {variant:8} {said}", flush=True)
    return found


def new(case: Case, variant: str) -> dict:
    names = ("group", "peer", "script", "model", "data", "steps", "warm_up")
    return {**{name: getattr(case, name) for name in names}, "variant": variant, "measurements": []}


def add(row: dict, found: dict) -> None:
    if "failure" in found:
        row["failure"] = found["failure"]
        return
    row.pop("failure", None)
    row |= {"facts": found.pop("facts"), "versions": found.pop("versions")}
    if row["script"] == "ours.py":
        row["commit"] = commit()
    row["measurements"].append(found)


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
    return done.stdout.strip()


def read(path: Path) -> dict[str, dict]:
    if not path.exists():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {f"{row['group']}/{row['peer']}/{row['model']}/{row['variant']}": row for row in rows}


def keep(rows: Mapping[str, dict], path: Path) -> None:
    order = {group: place for place, group in enumerate(GROUPS)}
    kept = sorted(rows.values(), key=lambda row: order.get(row["group"], len(order)))
    text = json.dumps(kept, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def prepared(data: Path, place: Path) -> dict[str, Path]:
    """Write the histories that the adapters read: items 1..V and offsets, the held-out events left out."""
    place.mkdir(parents=True, exist_ok=True)
    found = {name: place / f"{name}.npz" for name in ("ml-1m", "diginetica")}
    for name, path in found.items():
        if not path.exists():
            rows, n_items = (movielens if name == "ml-1m" else diginetica)(data)
            items = rows.explode().to_numpy().astype(np.int32)
            offsets = np.concatenate([[0], np.cumsum(rows.list.len().to_numpy())]).astype(np.int64)
            np.savez(path, items=items, offsets=offsets, n_items=n_items)
    return found


def movielens(data: Path) -> tuple[pl.Series, int]:
    """The histories of MovieLens-1M but for the last two events, which validate and test."""
    events = pl.read_parquet(data / "ml-1m" / "ml1m_sasrec_order.parquet").sort("user_id", "pos")
    rows = events.group_by("user_id", maintain_order=True).agg(pl.col("item_id").head(pl.len() - 2))
    return rows["item_id"], int(events["item_id"].max())


def diginetica(data: Path) -> tuple[pl.Series, int]:
    """Some sessions of Diginetica; the longest is one of them, for SR-GNN's own code pads all to its length."""
    rows = pl.read_parquet(data / "diginetica_gce" / "train_sessions.parquet")["seq"]
    chosen = np.random.default_rng(0).permutation(len(rows))[:SESSIONS]
    chosen = np.union1d(chosen, [rows.list.len().arg_max()])
    return rows.gather(chosen), int(rows.list.max().max())


if __name__ == "__main__":
    main()
