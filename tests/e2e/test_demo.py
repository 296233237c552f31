"""The demo ends with its page up, and without it where a script asks for that."""

import json
import signal
import subprocess
import sys
import threading
from urllib.request import Request, urlopen

import numpy as np
import pytest

from nextsession.experiment import Experiment
from nextsession.sources import open_source

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


def wanted_most(address, arm):
    """Ask an arm as somebody who has done nothing, before anybody has; return items and where they come from."""
    body = json.dumps({"visitor": "first", "arm": arm, "k": 8}).encode()
    with urlopen(Request(f"{address}/v1/recommendations", body)) as answer:
        items = json.load(answer)["items"]
    return [int(one["item"]) for one in items], {one["source"] for one in items}


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
        log = open_source(Experiment.read({"data": {"shop": {"users": 60, "items": 50}}, "models": ["popular"]})).log
        counts = np.bincount(log.items[log.labels == 1], minlength=log.n_items)
        for arm in arms:
            items, sources = wanted_most(address, arm["arm"])
            assert sources <= {"model", "usual"}, "a first visitor is shown just anything"
            codes = log.vocabulary.encode(np.array(items))
            assert counts[codes].tolist() == sorted(counts.tolist(), reverse=True)[:8]
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
