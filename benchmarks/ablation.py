"""What losses and negatives pay: the log, the rows, the tables of docs/explanation/losses.md and its pictures.

python benchmarks/ablation.py --prepare     # the log that recipes/ablation-losses.toml reads
nextsession compare recipes/ablation-losses.toml --out runs/bench/ablation-losses
python benchmarks/ablation.py --keep        # its rows, and paired differences, into benchmarks/results/
python benchmarks/ablation.py               # write the tables and draw the pictures
python benchmarks/ablation.py --check       # exit code 1 if a table is not what the rows say
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nextsession.bootstrap import Estimate, intervals
from nextsession.data import sets
from nextsession.data.prepared import Prepared
from nextsession.outcomes import LENGTHS, Report
from nextsession.rows import Row, read_rows, write_rows

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ROWS, PAIRS = RESULTS / "ablation-losses.json", RESULTS / "ablation-losses-pairs.json"
PAGE = ROOT / "docs" / "explanation" / "losses.md"
MARKS = ("<!-- ablation: {} -->", "<!-- end of ablation -->")

LOG = Path("runs/diginetica-gce-quarter")
MADE = Path("runs/bench/ablation-losses")
PAIRWISE = ("bpr", "bpr-max", "top1", "top1-max")
SHOWN = ("hitrate@20", "mrr@20")
OF_LAST_ITEM = {"max_length", "windows", "batch_size"}
"""Settings of a network that reads the last item alone: pairs of events, as many positions in a step."""
COUNTING = ("sequentialrules", "markov", "popular")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="write the log that the recipe reads")
    parser.add_argument("--keep", action="store_true", help="take over the rows of the comparison")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(LOG)
        return
    if arguments.keep:
        keep(MADE)
    before = PAGE.read_text(encoding="utf-8")
    after = before
    for name, table in tables(read_rows(ROWS), read_pairs(PAIRS)).items():
        after = between(after, MARKS[0].format(name), table)
    if arguments.check:
        if after != before:
            print(f"{PAGE.relative_to(ROOT)} is not what the rows say: run python benchmarks/ablation.py")
        sys.exit(after != before)
    PAGE.write_text(after, encoding="utf-8")
    from ablation_plots import draw  # matplotlib, which a check does without

    draw(read_rows(ROWS), read_pairs(PAIRS))


def between(text: str, mark: str, table: str) -> str:
    head, found, rest = text.partition(mark)
    if not found:
        raise SystemExit(f"{PAGE.relative_to(ROOT)} has no mark {mark}")
    return f"{head}{mark}\n{table}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


# -- the log ------------------------------------------------------------------------------------


def prepare(place: Path) -> None:
    """Write the latest quarter of the sessions of diginetica-gce (the set is in their order), and all its questions."""
    whole = sets.get("diginetica-gce").prepare()
    log = whole.log.rows(len(whole.log) - len(whole.log) // 4, len(whole.log))
    notes = {"of": "diginetica-gce", "part": "the latest quarter of its sessions"}
    made = Prepared.save(place, log, questions=whole.questions, notes=notes)
    print(f"{place}: {made.log.n_events:,} events in {made.log.n_sessions:,} sessions")


# -- the rows -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """How much better one row is than another, over all questions or those of one length of session."""

    key: str
    against: str
    metric: str
    length: str
    """Events of the session before the one that is asked for; `all`: of any number."""
    questions: int
    mean: float
    low: float
    high: float


def keep(folder: Path) -> None:
    """Copy the rows of a comparison, and work out what its reports say of pairs of them."""
    rows = read_rows(folder / "rows.json")
    write_rows(ROWS, rows)
    reports = {row.key: Report.load(folder / f"{row.model}-{row.key}.npz") for row in rows if row.metrics}
    pairs = [pair for row in rows if row.metrics for pair in compared(row, rival(row, rows), reports)]
    PAIRS.write_text(json.dumps([asdict(pair) for pair in pairs], indent=1) + "\n", encoding="utf-8")


def rival(row: Row, rows: Sequence[Row]) -> Row:
    """Return what a row is compared with: the reference, or of the last item alone the same with all events read."""
    first = reference(rows)
    if not is_neural(row) or "max_length" not in differs(row, first):
        return first
    return next(other for other in rows if is_neural(other) and differs(other, row) == OF_LAST_ITEM)


def compared(row: Row, against: Row, reports: dict[str, Report]) -> Iterator[Pair]:
    """Compare a row with another, question by question, by length of session."""
    own, other = reports[row.key], reports[against.key]
    if own.questions_key != other.questions_key:
        raise SystemExit(f"{row.title} was asked other questions")
    positions, settings = own.questions["positions"], own.settings
    groups = [("all", np.ones(len(own), bool))]
    groups += [(span(a, z), (positions >= a) & (positions <= z)) for a, z in LENGTHS]
    groups = [(name, chosen) for name, chosen in groups if chosen.any()]
    for metric in ("ndcg@10", *SHOWN):
        values = own.values(metric) - other.values(metric)
        found = intervals(
            (np.where(chosen, values, np.nan) for _, chosen in groups),
            own.questions["groups"],
            resamples=settings.bootstrap,
            seed=settings.seed,
            confidence=settings.confidence,
        )
        for (name, chosen), estimate in zip(groups, found, strict=True):
            yield Pair(row.key, against.key, metric, name, int(chosen.sum()), **asdict(estimate))


def span(first: int, last: int) -> str:
    if last == first:
        return str(first)
    return f"{first}-{last}" if last < LENGTHS[-1][1] else f">{first - 1}"


def read_pairs(path: Path) -> list[Pair]:
    return [Pair(**pair) for pair in json.loads(path.read_text(encoding="utf-8"))]


# -- what a row is called -----------------------------------------------------------------------


def kind(settings: dict[str, Any]) -> str:
    return str(settings["kind"]).replace("_", "-")


def loss_of(row: Row) -> str:
    """Name the loss of a network.

    >>> from types import SimpleNamespace
    >>> loss_of(SimpleNamespace(settings={"loss": {"kind": "bpr-max", "elu": 0.5}}))
    'BPR-max, ELU .5'
    """
    loss = row.settings["loss"]
    names = {
        "softmax": "softmax over all items", "sampled-softmax": "sampled softmax", "bce": "BCE", "gbce": "gBCE",
        "bpr": "BPR", "bpr-max": "BPR-max", "top1": "TOP1", "top1-max": "TOP1-max",
    }  # fmt: skip
    name = names[kind(loss)]
    if loss.get("label_smoothing"):
        name += f", smoothed by {short(loss['label_smoothing'])}"
    return name + (f", ELU {short(loss['elu'])}" if loss.get("elu") else "")


def negatives_of(row: Row) -> str:
    """Name the negatives of the loss."""
    loss = row.settings["loss"]
    return sampler(loss["negatives"]) if "negatives" in loss else "all"


def sampler(negatives: dict[str, Any]) -> str:
    if kind(negatives) == "uniform":
        return f"{negatives['n']} uniform, for each {negatives['per']}"
    if kind(negatives) == "popularity":
        return f"{negatives['n']} by popularity^{short(negatives['alpha'])}"
    if kind(negatives) == "mixed":
        return " and ".join(sampler(part) for part in negatives["parts"])
    if kind(negatives) == "hard":
        return f"hardest {negatives['top']} of {sampler(negatives['pool'])}"
    return "in-batch"


def short(value: float) -> str:
    return f"{value:g}".removeprefix("0")


def is_neural(row: Row) -> bool:
    return "loss" in row.settings


def reference(rows: Sequence[Row]) -> Row:
    """Return the row that all others are compared with: the first network of the recipe."""
    return next(row for row in rows if is_neural(row))


def differs(row: Row, first: Row) -> set[str]:
    """Return the settings in which a network is not the reference; those that came later are as they were."""
    return {name for name, value in row.settings.items() if first.settings.get(name, value) != value}


@dataclass(frozen=True)
class Arms:
    """The rows of the comparison by the question they answer."""

    first: Row
    losses: list[Row]
    negatives: list[Row]
    heads: list[Row]
    rates: list[Row]
    last_item: list[Row]
    counting: list[Row]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Arms":
        """Sort the rows of the recipe."""
        first = reference(rows)
        networks = [row for row in rows if is_neural(row)]

        def those(test: Callable[[Row, set[str]], bool]) -> list[Row]:
            return [row for row in networks if test(row, differs(row, first))]

        same = [row for row in networks if differs(row, first) <= {"loss"}]
        sampled = [row for row in same if kind(row.settings["loss"]) == "sampled-softmax"]
        return cls(
            first,
            losses=[first, *(row for row in same if row not in sampled)],
            negatives=sampled,
            heads=those(lambda _, names: bool(names & {"normalise", "temperature"})),
            rates=those(lambda _, names: "learning_rate" in names),
            last_item=those(lambda _, names: "max_length" in names),
            counting=[row for name in COUNTING for row in rows if row.model == name],
        )


# -- the tables ---------------------------------------------------------------------------------


def tables(rows: Sequence[Row], pairs: Sequence[Pair]) -> dict[str, str]:
    """Return the tables of the page by their marks."""
    arms = Arms.of(rows)
    found = {(pair.key, pair.metric, pair.length): pair for pair in pairs}
    return {
        "data": data(arms.first),
        "losses": arm_table(ranked(arms.losses), found, ["loss", "negatives"], lambda r: [loss_of(r), negatives_of(r)]),
        "negatives": arm_table(
            [*ranked(arms.negatives), *arms.heads],
            found,
            ["negatives", "logQ"],
            lambda r: [negatives_of(r) + head(r), r.settings["loss"]["logq"]],
        ),
        "rates": rates(arms),
        "lengths": lengths(arms, found),
    }


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Sort by MRR@20, the failed last."""
    return sorted(rows, key=lambda row: -row.metrics["mrr@20"]["mean"] if row.metrics else 1.0)


def head(row: Row) -> str:
    return (
        f", vectors of length 1, temperature {short(row.settings['temperature'])}" if row.settings["normalise"] else ""
    )


def data(first: Row) -> str:
    learnt, cost = first.data["train"], first.cost
    return (
        f"Learnt from {learnt['events']:,} events in {learnt['sessions']:,} sessions of {learnt['items']:,} items; "
        f"{first.data['test_questions']:,} questions, of which {first.questions['unknown_share']:.1%} ask for an item "
        f"that was not learnt and count as missed. The reference took {cost.fit_cpu_s:.0f} CPU-seconds to train."
    )


def arm_table(
    rows: Sequence[Row],
    pairs: dict[tuple[str, str, str], Pair],
    columns: Sequence[str],
    cells: Callable[[Row], list[str]],
) -> str:
    lines = [[*columns, "hitrate@20", "MRR@20", "MRR@20 beside the reference", "fit, CPU-s"]]
    lines += [["---"] * len(columns) + ["--:"] * 4]
    for row in rows:
        if not row.metrics:
            lines.append([*cells(row), "failed", "", "", ""])
            continue
        pair = pairs[row.key, "mrr@20", "all"]
        hit, mrr = (row.metrics[name] for name in SHOWN)
        difference = "the reference" if pair.key == pair.against else signed(pair)
        shown = [f"{hit['mean']:.4f}", f"{mrr['mean']:.4f} ({mrr['low']:.4f}-{mrr['high']:.4f})", difference]
        lines.append([*cells(row), *shown, f"{row.cost.fit_cpu_s or 0:.0f}"])
    return markdown(lines)


def rates(arms: Arms) -> str:
    """Return MRR@20 by loss and learning rate."""
    losses = [loss_of(row) for row in arms.rates]
    tried = [row for row in [*arms.losses, *arms.rates] if loss_of(row) in losses]
    tried = [row for row in tried if negatives_of(row) == negatives_of(arms.first)]
    steps = sorted({row.settings["learning_rate"] for row in tried})
    found = {(loss_of(row), row.settings["learning_rate"]): row for row in tried}
    lines = [["loss", *(f"{rate:g}" for rate in steps)], ["---", *["--:"] * len(steps)]]
    for loss in dict.fromkeys(losses):
        own = [found.get((loss, rate)) for rate in steps]
        means = [row.metrics["mrr@20"]["mean"] if row and row.metrics else None for row in own]
        cells = [
            "" if row is None else "failed" if mean is None else f"{mean:.4f}"
            for row, mean in zip(own, means, strict=True)
        ]
        lines.append([loss, *cells])
    return markdown(lines)


def lengths(arms: Arms, pairs: dict[tuple[str, str, str], Pair]) -> str:
    """Return the reference by length of session, and how far others are from it."""
    groups = [group for group in arms.first.breakdown["session_length"] if group["n"]]
    lines = [["events known", *(group["group"] for group in groups)], ["---", *["--:"] * len(groups)]]
    lines.append(["questions", *(f"{group['n']:,}" for group in groups)])
    for metric, shown in (("mrr@20", of_interest(arms)), ("hitrate@20", of_interest(arms)[:1])):
        title = "MRR@20" if metric == "mrr@20" else metric
        lines.append([f"**{title}** of the reference", *(f"{group['metrics'][metric]:.4f}" for group in groups)])
        for name, row in shown:
            own = [pairs[row.key, metric, group["group"]] for group in groups]
            lines.append([f"{name}, beside it", *(signed(pair) for pair in own)])
    for row in arms.last_item[1:]:
        for metric in SHOWN:
            own = [pairs[row.key, metric, group["group"]] for group in groups]
            title = "MRR@20" if metric == "mrr@20" else metric
            lines.append(
                [f"**{title}** of the last item alone beside all events, {arm(row)}", *(signed(p) for p in own)]
            )
    return markdown(lines)


def arm(row: Row) -> str:
    """Name the loss, the negatives and the correction."""
    logq = row.settings["loss"].get("logq", "none")
    return f"{loss_of(row)}, {negatives_of(row)}" + (f", logQ {logq}" if logq != "none" else "")


def of_interest(arms: Arms) -> list[tuple[str, Row]]:
    """Return the rows that are shown by length of session beside the reference, with their names."""
    pairwise = [row for row in ranked(arms.losses) if kind(row.settings["loss"]) in PAIRWISE]
    counting = [row for row in arms.counting if row.model != "popular"]
    return [
        ("last item alone", arms.last_item[0]),
        (loss_of(pairwise[0]), pairwise[0]),
        *((row.model, row) for row in counting),
    ]


def signed(estimate: Pair | Estimate) -> str:
    return f"{estimate.mean:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
