"""A disk that is full under load, a real one: a small file system of its own."""

import contextlib
import http.client
import json
import subprocess
import time
from pathlib import Path

import pytest
from test_serve import Clients, ask, models, serving  # noqa: F401 - a fixture is among them

from nextsession.serving.sqlite import SQLiteStore


@pytest.fixture
def disk(tmp_path):
    """A file system of eight megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no command mount")
    if done.returncode:
        pytest.skip(f"nothing may be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place):
    """Take all room that is left."""
    with place.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def post(port, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        return response.status, response.getheader("retry-after"), json.loads(response.read())
    finally:
        connection.close()


def until(act, what):
    for _ in range(400):
        if act():
            return
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


class Outage:
    """The disk becomes full, and has room again; meanwhile somebody asks."""

    def __init__(self, port, ballast, turn):
        self.port, self.ballast, self.turn, self.number = port, ballast, turn, 0
        self.acknowledged = []

    def send(self):
        """Send an event; return the status."""
        self.number += 1
        name = f"outage {self.turn} {self.number}"
        status, after, answer = post(self.port, "/v1/events", {"visitor": "full", "item": 7, "id": name})
        if status == 200:
            self.acknowledged.append(name)
        else:
            assert (status, after, answer["status"]) == (503, "1", 503)
        return status

    def refused(self):
        fill(self.ballast)
        return self.send() == 503

    def taken(self):
        return self.send() == 200

    def lists_go_out(self):
        for place in range(40):
            event = {"visitor": f"new {place}", "item": 7, "id": f"{self.turn} {place}"}
            status, _, answer = post(self.port, "/v1/recommendations", {"event": event, "k": 5})
            assert (status, len(answer["items"])) == (200, 5)
            assert (answer["degraded"], answer["recorded"]) == (["store"], None)
        assert post(self.port, "/v1/recommendations", {"visitor": "v1", "k": 5})[0] == 200
        assert ask(self.port, "GET", "/readyz")[0] == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_full_and_with_room_again_under_load(models, disk, workers):  # noqa: F811
    """Events are refused and lists go out, over and over; with room again all is well without a restart."""
    state, acknowledged = disk / "state", []
    with serving(models / "v0", "--state", state, "--workers", workers) as process:
        clients = Clients(3, process.port)
        for turn in range(2):
            many = len(clients.acknowledged) + 20
            until(lambda many=many: len(clients.acknowledged) > many, "events are taken")
            said = len(process.lines)
            outage = Outage(process.port, disk / "ballast", turn)
            until(outage.refused, "the disk is full")
            outage.lists_go_out()
            outage.ballast.unlink()
            until(outage.taken, "there is room")
            acknowledged += outage.acknowledged
            assert len(process.lines) - said < 30, "a line for each answer that failed"
        many = len(clients.acknowledged) + 20
        until(lambda: len(clients.acknowledged) > many, "events are taken again")
        clients.end()
        assert set(clients.statuses) == {200, 503}
        levels = [json.loads(line)["level"] for line in process.lines]
        assert not {"error", "critical"} & set(levels), process.lines
    store = SQLiteStore(Path(state) / "events.sqlite")
    stored = [one.event.id for one in store.events()]
    store.close()
    assert {*clients.acknowledged, *acknowledged} <= set(stored)
    assert len(stored) == len(set(stored))
