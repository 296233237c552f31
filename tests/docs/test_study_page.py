"""The tables of docs/explanation/next-session-study.md are what the summaries say."""

import subprocess
import sys
from pathlib import Path

import pytest

from nextsession.study.summary import Summary

ROOT = Path(__file__).parents[2]
KEPT = sorted((ROOT / "benchmarks/results").glob("study-*.json"))


def test_tables_are_what_the_summaries_say():
    done = subprocess.run(
        [sys.executable, "benchmarks/study.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_summaries_are_made_by_the_command_they_name(path):
    summary = Summary.load(path)
    assert path.stem == f"study-{summary.data['name']}-{summary.study}"
    assert summary.command.startswith(f"nextsession study {summary.study} --data {summary.data['name']}")
    assert all(model.metrics for model in summary.models), "a training failed"


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_every_picture_is_there(path):
    name = path.stem
    page = (ROOT / "docs/explanation/next-session-study.md").read_text(encoding="utf-8")
    svg = ROOT / f"docs/explanation/{name}.svg"
    assert (f"({name}.svg)" in page) == svg.exists()
