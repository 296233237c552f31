"""The study of next-session prediction: the tables and pictures of docs/explanation/next-session-study.md.

nextsession study overall --data shop   # and so on: one command a table, see the page
python benchmarks/study.py --keep       # take over the summaries in runs/study/
python benchmarks/study.py              # write the tables and draw the pictures
python benchmarks/study.py --check      # exit code 1 if a table is not what the summaries say
"""

import argparse
import shutil
import sys
from pathlib import Path

from nextsession.report.leaderboard import number
from nextsession.study.page import verdict
from nextsession.study.plans import TITLES
from nextsession.study.summary import Summary
from nextsession.study.tables import cells, markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "explanation" / "next-session-study.md"
MADE = Path("runs/study")
MARKS = ("<!-- study: {} -->", "<!-- end of study -->")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="take over the summaries of runs/study/")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    if arguments.keep:
        for path in sorted(MADE.glob("*/*.json")):
            if path.stem in TITLES:
                shutil.copy(path, RESULTS / f"study-{path.parent.name}-{path.stem}.json")
    before = PAGE.read_text(encoding="utf-8")
    after = written(before, summaries())
    if arguments.check:
        if after != before:
            print(f"{PAGE.relative_to(ROOT)} is not what the summaries say: run python benchmarks/study.py")
        sys.exit(after != before)
    PAGE.write_text(after, encoding="utf-8")
    from ablation_plots import inked  # matplotlib, which a check does without

    from nextsession.study.pictures import picture

    for name, summary in summaries().items():
        if svg := picture(summary):
            path = PAGE.with_name(f"study-{name}.svg")
            path.write_text(inked(svg), encoding="utf-8")
            print(path.relative_to(ROOT))


def summaries() -> dict[str, Summary]:
    """Return what is kept, by data and study: `ebnerd-alpha`."""
    return {path.stem.removeprefix("study-"): Summary.load(path) for path in sorted(RESULTS.glob("study-*.json"))}


def written(text: str, found: dict[str, Summary]) -> str:
    """Return the page with every block as the summaries say."""
    for name, summary in found.items():
        text = between(text, MARKS[0].format(name), block(summary))
    return between(text, MARKS[0].format("all"), overview(found))


def between(text: str, mark: str, block: str) -> str:
    head, found, rest = text.partition(mark)
    if not found:
        raise SystemExit(f"{PAGE.relative_to(ROOT)} has no mark {mark}")
    return f"{head}{mark}\n{block}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


def block(summary: Summary) -> str:
    """Return what a summary says, as Markdown."""
    data, settings = summary.data, summary.settings
    learnt, seeds, layers = data["train"], settings["seeds"], settings["layers"]
    width = "" if summary.study == "scaling" else f"{settings['dim']} wide, "
    told = (
        f"Learnt from {learnt['events']:,} events in {learnt['sessions']:,} sessions of {learnt['items']:,} items; "
        f"{data['test_questions']:,} questions. Networks: {width}{layers} {'layer' if layers == 1 else 'layers'}, "
        f"at most {settings['epochs']} passes, {seeds} {'seed' if seeds == 1 else 'seeds'}."
    )
    parts = [told, verdict(summary)]
    tables = cells(summary, best="**{}**")
    for table in tables:
        parts += [*([f"*{table[0]}*"] if len(tables) > 1 else []), markdown(table)]
    return "\n\n".join(parts)


def overview(found: dict[str, Summary]) -> str:
    """Return the commands of all studies that were run, with what they cost."""
    lines = ["| study | on | command | CPU-s of training |", "| --- | --- | --- | --: |"]
    for summary in found.values():
        cost = sum((m.fit_cpu_s or 0) * m.seeds for m in summary.models)
        command = f"`{summary.command}`"
        lines.append(f"| {TITLES[summary.study]} | {summary.data['name']} | {command} | {number(cost)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
