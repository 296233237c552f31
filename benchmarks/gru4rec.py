"""What GRU4Rec costs, and what it reaches: `python benchmarks/gru4rec.py [--rsc15 FOLDER] [--official CHECKOUT]`.

Speed is counted in pairs of an event and the next per CPU second, on drawn sessions of four events
over 37,500 items; memory and time are shown as items grow from 10^3 to 10^6.  `--rsc15` adds quality
and speed on the first clicks of RSC15 (the folder of `yoochoose-clicks-100k_*.txt`).  `--official`
measures the authors' code beside ours, on the same files, each in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl

from nextsession import Cases, SessionLog, Vocabulary
from nextsession.cost import forget_peak, peak_memory
from nextsession.data.log import offsets_of
from nextsession.models.gru4rec import GRU4Rec

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gru4rec.json"
CONFIGURATIONS = {
    "100 units, batch 32, 2048 samples": {"layers": [100], "batch_size": 32, "n_sample": 2048},
    "224 units, batch 80, 2048 samples": {"layers": [224], "batch_size": 80, "n_sample": 2048},
    "100 units, batch 128, 512 samples": {"layers": [100], "batch_size": 128, "n_sample": 512},
}
OFFICIAL = {"loss": "cross-entropy", "dropout_p_embed": 0.1, "learning_rate": 0.1, "sample_alpha": 0.75, "logq": 1.0}
ITEMS = (1_000, 10_000, 100_000, 1_000_000)
PAIRS = 60_000


def drawn(n_items: int, pairs: int, seed: int = 0) -> SessionLog:
    """Sessions of four events on the mean: a popular item, then items near it; one session a second."""
    rng = np.random.default_rng(seed)
    lengths = 1 + rng.geometric(1 / 3, pairs // 3)
    offsets = offsets_of(lengths)
    popularity = np.cumsum(np.arange(1, n_items + 1) ** -0.8)
    first = np.searchsorted(popularity, rng.random(len(lengths)) * popularity[-1])
    codes = (np.repeat(first, lengths) + rng.geometric(0.3, offsets[-1]) - 1) % n_items
    times = (
        np.repeat(1000 * np.arange(len(lengths)), lengths) + np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    )
    every = np.arange(len(offsets))
    return SessionLog(codes.astype(np.int32), times, offsets, every, Vocabulary(np.arange(n_items)))


def rsc15(folder: Path) -> tuple[SessionLog, SessionLog]:
    """The training log, and the test sessions without items that it does not know."""

    def table(part: str) -> pl.DataFrame:
        time_ms = (pl.col("Time") * 1000).round().cast(pl.Int64)
        read = pl.read_csv(folder / f"yoochoose-clicks-100k_{part}.txt", separator="\t")
        return read.select(session="SessionId", item="ItemId", time=time_ms).sort(
            "session", "time", maintain_order=True
        )

    def log(clicks: pl.DataFrame) -> SessionLog:
        offsets = offsets_of(clicks.group_by("session", maintain_order=True).len()["len"].to_numpy())
        codes = vocabulary.encode(clicks["item"].to_numpy())
        return SessionLog(codes, clicks["time"].to_numpy(), offsets, np.arange(len(offsets)), vocabulary)

    train = table("train_full")
    vocabulary = Vocabulary.of(train["item"].to_numpy())
    known = table("test").filter(pl.col("item").is_in(vocabulary.ids.tolist()))
    return log(train), log(known.filter(pl.len().over("session") > 1))


def every_prefix(log: SessionLog) -> Cases:
    """Every event after the first of its session is a target."""
    ends = np.setdiff1d(np.arange(log.n_events), log.session_offsets[:-1])
    starts = log.session_offsets[log.sessions_of(ends)]
    events = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
    each = np.arange(len(ends) + 1)
    histories = SessionLog(log.items[events], log.times[events], offsets_of(ends - starts), each, log.vocabulary)
    return Cases(histories, log.times[ends], log.items[ends], each, each[:-1])


def ours(train: SessionLog, test: SessionLog | None, settings: dict, epochs: int) -> dict:
    """Train in this process and say what it took and gave; a tiny run before compiles."""
    GRU4Rec(**settings, epochs=1).fit(drawn(50, 30))
    forget_peak()
    before = peak_memory()
    model = GRU4Rec(**settings, epochs=epochs).fit(train)
    peak = peak_memory()
    pairs = train.n_events - train.n_sessions
    row = {"pairs": pairs, "cpu_s": model.curve_[:, 3].round(3).tolist()}
    row |= {"events_per_cpu_s": round(pairs / model.curve_[:, 3].min())}
    row |= {"model_mb": round(sum(a.nbytes for a in model._arrays().values()) / 1e6, 1)}
    if before is not None and peak is not None:
        row |= {"fit_mb": round(peak - before, 1)}
    if test is not None:
        counts = model.rank(every_prefix(test)).counts
        place = 1 + counts.greater + (counts.equal - 1) / 2
        row |= {"recall@20": float(np.mean(place <= 20)), "mrr@20": float(np.mean((place <= 20) / place))}
    return row


def theirs(checkout: Path, train: SessionLog, test: SessionLog | None, settings: dict, epochs: int) -> dict:
    """The same with the authors' code, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file, asked = Path(folder) / "sessions.npz", test or train.take([])
        np.savez(
            file, train_items=train.items, train_times=train.times, train_offsets=train.session_offsets,
            test_items=asked.items, test_offsets=asked.session_offsets,
        )  # fmt: skip
        script = str(HERE / "peers" / "gru4rec_official.py")
        options = json.dumps(OFFICIAL | settings | {"n_epochs": epochs})
        done = subprocess.run(
            [sys.executable, script, str(checkout), str(file), options], capture_output=True, text=True, check=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print a line a row, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rsc15", type=Path)
    parser.add_argument("--official", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    work: list[tuple[str, SessionLog, SessionLog | None, dict]] = []
    if given.rsc15:
        work += [
            ("rsc15-100k, 100 units, batch 32, 2048 samples", *rsc15(given.rsc15), next(iter(CONFIGURATIONS.values())))
        ]
    work += [(f"drawn, {name}", drawn(37_500, PAIRS), None, settings) for name, settings in CONFIGURATIONS.items()]
    first = next(iter(CONFIGURATIONS.values()))
    rows = []
    for name, train, test, settings in work:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            found = alone.submit(ours, train, test, settings, given.epochs).result()
        rows.append({"case": name, "code": "nextsession", "settings": settings, **found})
        print(json.dumps(rows[-1]), flush=True)
        if given.official:
            found = theirs(given.official, train, test, settings, given.epochs)
            rows.append({"case": name, "code": "official", "settings": settings, **found})
            print(json.dumps(rows[-1]), flush=True)
    for n_items in ITEMS:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            found = alone.submit(ours, drawn(n_items, PAIRS), None, first, 1).result()
        rows.append({"case": f"{n_items} items", "code": "nextsession", "settings": first, **found})
        print(json.dumps(rows[-1]), flush=True)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
