"""The table of what compiled networks cost is that of the rows."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
spec = importlib.util.spec_from_file_location("benchmark_of_runtime", ROOT / "benchmarks" / "runtime.py")
assert spec is not None
assert spec.loader is not None
runtime = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runtime)


def test_the_table_is_that_of_the_rows():
    text, rows = runtime.PAGE.read_text(encoding="utf-8"), json.loads(runtime.RESULT.read_text(encoding="utf-8"))
    assert runtime.page(text, rows) == text
    assert {row["torch"] for row in rows if row["how"] == "compiled"} == {False}
