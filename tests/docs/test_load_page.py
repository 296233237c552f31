"""The tables of docs/explanation/live-state.md are what the rows of load tests say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tables_are_what_the_rows_say():
    done = subprocess.run(
        [sys.executable, "benchmarks/load_table.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
