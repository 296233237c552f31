"""The tables of docs/explanation/losses.md are what the rows of the ablation say."""

import subprocess
import sys
from pathlib import Path

from nextsession.experiment import Experiment, ModelChoice
from nextsession.rows import read_rows

ROOT = Path(__file__).parents[2]


def test_tables_are_what_the_rows_say():
    done = subprocess.run(
        [sys.executable, "benchmarks/ablation.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rows_are_those_of_the_recipe():
    asked = Experiment.load(ROOT / "recipes/ablation-losses.toml").models
    rows = read_rows(ROOT / "benchmarks/results/ablation-losses.json")
    assert [ModelChoice.of({"name": row.model, **row.settings}) for row in rows] == list(asked)
