"""Training that is killed at any moment, in the middle of writing too, ends bit for bit where it would have ended."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

SCRIPT = """
import json, os, pathlib, signal, sys
import numpy as np
from nextsession import files, training
from nextsession.config import Runtime
from nextsession.data.cases import Cases
from nextsession.models.sasrec import SASRec
from nextsession.testing.subjects import questions, wanted_log

LOG = wanted_log()
ASKED = questions()
VALIDATION = Cases(
    ASKED, ASKED.last_times + 1, (np.arange(len(ASKED)) % 10 + 1).astype(np.int32), np.arange(len(ASKED) + 1),
    np.arange(len(ASKED)),
)

def fit(checkpoints):
    model = SASRec(
        dim=8, max_length=6, epochs=9, batch_size=4, learning_rate=0.03, ema=0.9, patience=3, layers=1,
        schedule="cosine",
    )
    return model.fit(
        LOG,
        validation=[VALIDATION],
        runtime=Runtime(seed=3, device="cpu", checkpoints=checkpoints, checkpoint_every=0),
    )

def die_at(place, name, n):
    original, calls = getattr(place, name), []

    def called(*arguments, **more):
        calls.append(1)
        if len(calls) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **more)

    setattr(place, name, called)

MOMENTS = {"step": (training._Passes, "step"), "file": (os, "fsync"), "rename": (pathlib.Path, "rename")}
whole = fit(None)
died = []
for text in sys.argv[2:]:
    name, _, n = text.partition(":")
    child = os.fork()
    if child == 0:
        die_at(*MOMENTS[name], int(n))
        fit(sys.argv[1])
        os._exit(0)
    died.append(os.WIFSIGNALED(os.waitpid(child, 0)[1]))
taken = []
original = training._Passes.step
training._Passes.step = lambda self, *a: (taken.append(1), original(self, *a))[1]
last = fit(sys.argv[1])
one, other = whole._arrays(), last._arrays()
columns = [0, 1, 2, 5, 6]  # all but the times
same = all(np.array_equal(one[k], other[k]) for k in one if k != "curve")
same &= np.array_equal(one["curve"][:, columns], other["curve"][:, columns], equal_nan=True)
folder = pathlib.Path(sys.argv[1]) / "sasrec"
print(json.dumps({
    "same": bool(same), "died": died, "epochs": len(one["curve"]), "taken": len(taken),
    "lines": len((folder / "curve.csv").read_text().splitlines()),
    "files": sorted(p.name for p in folder.iterdir() if p.name[0] != "."),
}))
"""


def test_killed_again_and_again(tmp_path):
    # in the middle of steps, of writing a file, and between the renames that put a checkpoint in its place
    moments = ["step:2", "step:7", "file:4", "rename:5", "rename:2", "step:9", "rename:3", "step:1"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), *moments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["same"]
    assert all(found["died"])
    assert 0 < found["taken"] < 7 * found["epochs"]  # it did go on
    assert found["files"] == ["curve.csv", "curve.html", "state"]
    assert found["lines"] == found["epochs"] + 1
