"""The demo ends with its page up, and without it where a script asks for that."""

import json
import signal
import subprocess
import sys
import threading
from urllib.request import urlopen

import pytest

SMALL = """
import sys
from nextsession.cli import demo, main, window
demo._data = lambda: {"data": {"shop": {"users": 60, "items": 50}}, "split": {"test": "7d"}}
demo._MODELS, demo._MORE = ("popular", "markov"), ()
window.NETWORK = {**window.NETWORK, "layers": [8], "epochs": 1}
sys.exit(main())
"""


def start(tmp_path, *flags):
    return subprocess.Popen(
        [sys.executable, "-c", SMALL, "demo", "--out", str(tmp_path / "out"), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_ends_by_itself_for_scripts_and_else_with_the_page_up(tmp_path):
    pytest.importorskip("uvicorn")
    process = start(tmp_path, "--no-serve")
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "Serving" not in said
    assert "report.html" in out

    process = start(tmp_path)  # what was compared is not compared again
    timer = threading.Timer(300, process.kill)  # whatever goes wrong, this test ends
    timer.start()
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if "Serving on " in line:
                break
        address = said[-1].split()[2]
        assert address.startswith("http://127.0.0.1:"), said
        with urlopen(f"{address}/") as page:
            assert b"app.js" in page.read()
        with urlopen(f"{address}/v1/models") as models:
            arms = json.load(models)["arms"]
        assert arms[0]["model"] in ("popular", "markov")
        assert arms[1]["model"] == "gru4rec"
        with urlopen(f"{address}/v1/items/1") as item:
            assert json.load(item)["title"]
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=60)
        assert process.returncode in (0, 130), rest
        assert "Report: " in out
        assert "Traceback" not in "".join(said) + rest
    finally:
        timer.cancel()
        process.kill()
        process.wait()
