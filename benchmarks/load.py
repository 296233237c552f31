"""Load a server the way visitors do: open loop, with a ramp, Zipf visitors, and order within each visitor.

    python benchmarks/load.py --serve runs/gru4rec-1m --rate 1000 --seconds 30 --items 1000000
    python benchmarks/load.py --url http://shop:8000 --rate 100                  # a server that runs already

Requests arrive when they arrive (a Poisson process), whether or not earlier ones were answered: a
closed loop would wait for a slow server and so hide how long others had to.  A latency counts from
the instant at which the request should have been sent.  Visitors are drawn by Zipf's law; a
visitor's next request waits for the answer to the one before, and that wait counts too.

Of the requests, a share (`--events`) records an event, the others ask for a list and record an
event on the way (`--alone`: without).  `--serve` starts `nextsession serve` on an empty folder, waits
until it is ready, and ends it afterwards.  The result, one JSON object, holds latencies, the CPU time
of the server by stage (`/metrics`; `http` is what is left of the thread that answers), its memory
(PSS: pages that processes share are counted once) before and after, and how much of it is pages of files;
`--out` adds it to a file of rows.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

TICKS = os.sysconf("SC_CLK_TCK")


class Connection(asyncio.Protocol):
    """One kept-alive connection; one request at a time."""

    def __init__(self):
        self.buffer, self.waiting, self.transport = b"", None, None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
        if len(body) >= size:
            self.buffer = b""
            done, self.waiting = self.waiting, None
            if done is not None and not done.done():
                done.set_result((int(head[9:12]), body))

    def connection_lost(self, error):
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(ConnectionError("the server closed the connection"))
        self.transport = None

    def ask(self, request):
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.waiting


class Load:
    """What is sent, and how it went."""

    def __init__(self, args):
        self.args = args
        place = urlsplit(args.url)
        self.host, self.port = place.hostname, place.port or 80
        self.idle, self.queue, self.of_visitor = [], deque(), {}
        self.latencies, self.kinds, self.statuses, self.degraded = [], [], {}, 0
        rng = np.random.default_rng(args.seed)
        number = int(args.rate * (args.ramp / 2 + args.seconds)) + 100
        self.visitors = zipf(rng, args.visitors, args.zipf, number)
        self.items = zipf(rng, args.items, args.zipf, number)
        self.names = json.loads(Path(args.names).read_text()) if args.names else None
        self.run = f"{os.getpid():x}{args.seed:x}"

    def request(self, i):
        """Return the bytes of request `i`, its kind and its visitor."""
        visitor = int(self.visitors[i % len(self.visitors)])
        code = int(self.items[i % len(self.items)])
        item = self.names[code % len(self.names)] if self.names else code
        event = {"visitor": f"{self.run}-{visitor}", "item": item, "id": f"{self.run}-{i}"}
        if random.random() < self.args.events:
            kind, path, body = "event", "/v1/events", event
            if self.args.batch > 1:
                more = [self.visitors[(i + n * 7919) % len(self.visitors)] for n in range(self.args.batch)]
                body = [event | {"visitor": f"{self.run}-{v}", "id": f"{self.run}-{i}-{n}"} for n, v in enumerate(more)]
        else:
            kind, path = "list", "/v1/recommendations"
            body = {"visitor": event["visitor"], "k": self.args.k}
            if not self.args.alone:
                body["event"] = event
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
        return head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content, kind, visitor

    async def connect(self):
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self.host, self.port)
        return connection

    async def go(self):
        """Send everything; return when all is answered."""
        args, tasks = self.args, set()
        for _ in range(args.connections):
            self.idle.append(await self.connect())
        begin, at, i = time.perf_counter() + 0.2, 0.0, 0
        self.measured_from = begin + args.ramp
        while at < args.ramp + args.seconds:
            rate = args.rate * min(1.0, 0.05 + 0.95 * at / args.ramp) if args.ramp else args.rate
            at += random.expovariate(rate)
            wait = begin + at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.ensure_future(self.one(i, begin + at))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            i += 1
            if args.pid and at >= args.ramp and not hasattr(self, "spent_from"):
                self.spent_from, self.counted_from = await self.spent(), i
        if args.pid:
            self.spent_to, self.counted_to = await self.spent(), i
        if tasks:
            await asyncio.wait(tasks, timeout=30)
        self.unanswered = len(tasks)
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def spent(self):
        """Return the CPU seconds of the server so far: in all, of the thread that answers, and by stage."""
        connection = await self.connect()
        _, body = await connection.ask(f"GET /metrics HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
        connection.transport.close()
        stages = re.findall(rb'nextsession_cpu_seconds_total{stage="(\w+)"} ([\d.]+)', body)
        found = {name.decode(): float(seconds) for name, seconds in stages}
        buckets = re.findall(rb'nextsession_seconds_bucket{stage="(\w+)",le="([\d.+Inf]+)"} (\d+)', body)
        self.buckets = [(stage.decode(), float(edge), int(count)) for stage, edge, count in buckets]
        answering = sum(cpu_of_thread(f"/proc/{p}/task/{p}/stat") for p in family(self.args.pid) if not writes(p))
        return {"all": cpu_of(self.args.pid), "answering": answering, **found}

    def waits(self):
        """Return percentiles of the wall times of stages, in ms: the upper edges of the buckets they lie in."""
        found = {}
        for stage in dict.fromkeys(stage for stage, _, _ in self.buckets):
            edges = [(edge, count) for one, edge, count in self.buckets if one == stage]
            total = edges[-1][1]
            at = {q: next(edge for edge, count in edges if count >= q / 100 * total) for q in (50, 90, 99)}
            found[stage] = {f"p{q}": round(1000 * edge, 2) if edge < math.inf else None for q, edge in at.items()}
        return found

    def by_stage(self):
        """Return the CPU microseconds of a request by stage."""
        number = max(1, self.counted_to - self.counted_from)
        took = {k: 1e6 * (v - self.spent_from.get(k, 0.0)) / number for k, v in self.spent_to.items()}
        whole, answering = took.pop("all"), took.pop("answering")
        inside = sum(v for k, v in took.items() if k != "store")
        took |= {"http": answering - inside, "other": whole - answering - took.get("store", 0.0), "all": whole}
        return {k: round(v, 1) for k, v in took.items()}

    async def one(self, i, due):
        request, kind, visitor = self.request(i)
        before = self.of_visitor.get(visitor)
        mine = self.of_visitor[visitor] = asyncio.get_running_loop().create_future()
        try:
            if before is not None:
                await before
            while not self.idle:
                turn = asyncio.get_running_loop().create_future()
                self.queue.append(turn)
                await turn
            connection = self.idle.pop()
            try:
                if connection.transport is None:
                    connection = await self.connect()
                status, body = await connection.ask(request)
                self.degraded += b'"degraded":[]' not in body and kind == "list" and status == 200
            except OSError:
                status = 0
            self.idle.append(connection)
            while self.queue:
                turn = self.queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    break
        finally:
            if not mine.done():
                mine.set_result(None)
            if self.of_visitor.get(visitor) is mine:
                del self.of_visitor[visitor]
        if due >= self.measured_from:
            self.latencies.append(time.perf_counter() - due)
            self.kinds.append(kind)
            self.statuses[status] = self.statuses.get(status, 0) + 1


def zipf(rng, number, exponent, size):
    """Draw from `0..number`, the i-th in proportion to `1 / (i + 1) ** exponent`."""
    cumulated = np.cumsum(1.0 / np.arange(1, number + 1) ** exponent)
    return np.searchsorted(cumulated, rng.random(size) * cumulated[-1])


def family(pid):
    """Return the process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def writes(pid):
    """Say whether a process is one that writes the events of another."""
    return b"nextsession.serving.scribe" in Path(f"/proc/{pid}/cmdline").read_bytes()


def cpu_of(pid):
    """Return the CPU seconds that a process and its descendants have used."""
    return sum(cpu_of_thread(f"/proc/{one}/stat") for one in family(pid))


def cpu_of_thread(stat):
    fields = Path(stat).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_of(pid, kind="Pss"):
    """Return the proportional set size (MB) of a process and its descendants: shared pages are counted once.

    `Pss_File` are those of it that are pages of files, which the system may drop and read again.
    """
    total = 0
    for one in family(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                total += int(line.split()[1])
    return total / 1024


def percentiles(values):
    """Return percentiles in milliseconds."""
    shares = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9}
    return {name: round(1000 * float(np.percentile(values, q)), 3) for name, q in shares.items()} if values else {}


@contextlib.contextmanager
def serving(args):
    """Start a server on an empty folder, and end it; give its pid, and after how many seconds it was ready."""
    with tempfile.TemporaryDirectory(dir=args.state) as folder:
        port = urlsplit(args.url).port
        options = ["--port", str(port), "--state", folder, "--workers", str(args.workers)]
        command = [sys.executable, "-m", "nextsession", "serve", *args.serve, *options]
        began = time.perf_counter()
        with (Path(folder) / "server.log").open("w") as log:
            server = subprocess.Popen(command, stderr=log, stdout=log)
        try:
            while not is_ready(args.url):
                if server.poll() is not None:
                    raise SystemExit((Path(folder) / "server.log").read_text())
                time.sleep(0.01)
            yield server.pid, time.perf_counter() - began
        finally:
            server.terminate()
            server.wait(30)


def is_ready(url):
    try:
        return urllib.request.urlopen(f"{url}/readyz", timeout=1).status == 200
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8123")
    parser.add_argument("--serve", nargs="+", metavar="ARTIFACT", help="start a server of these")
    parser.add_argument("--workers", type=int, default=1, help="of the server that is started")
    parser.add_argument("--state", help="a folder on the disk that should be measured; the temporary one if not given")
    parser.add_argument("--rate", type=float, default=1000, help="requests a second after the ramp")
    parser.add_argument("--ramp", type=float, default=5, help="seconds until the rate is reached; not measured")
    parser.add_argument("--seconds", type=float, default=30, help="measured seconds")
    parser.add_argument("--events", type=float, default=0.3, help="share of requests that only record an event")
    parser.add_argument("--batch", type=int, default=1, help="events in a request that records events")
    parser.add_argument("--alone", action="store_true", help="lists without an event on the way")
    parser.add_argument("--visitors", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=100_000, help="items are the numbers below this")
    parser.add_argument("--zipf", type=float, default=0.8, help="exponent of visitors and items")
    parser.add_argument("--names", help="a JSON file with a list of ids, in place of numbers")
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pid", type=int, help="the server that runs already, to read its CPU time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", default="", help="what the row is called in the table")
    parser.add_argument("--out", type=Path, help="a JSON file of rows to add the result to")
    args = parser.parse_args()
    random.seed(args.seed)
    before = os.getloadavg()[0]
    with serving(args) if args.serve else contextlib.nullcontext((args.pid, None)) as (args.pid, ready):
        row = measured(args, ready, before)
    print(json.dumps(row))
    if args.out:
        rows = json.loads(args.out.read_text()) if args.out.exists() else []
        rows = [other for other in rows if other["label"] != row["label"]]
        args.out.write_text(json.dumps([*rows, row], indent=1) + "\n")


def measured(args, ready, before):
    """Send everything, and return the row."""
    load = Load(args)
    memory = memory_of(args.pid) if args.pid else None
    try:
        import uvloop

        runner = uvloop.run
    except ModuleNotFoundError:
        runner = asyncio.run
    runner(load.go())
    by_kind = {
        kind: percentiles([x for x, k in zip(load.latencies, load.kinds, strict=True) if k == kind])
        for kind in ("list", "event")
    }
    row = {
        "label": args.label,
        "command": "python " + " ".join(sys.argv),
        "asked_per_second": args.rate,
        "answered_per_second": round(len(load.latencies) / args.seconds, 1),
        "statuses": load.statuses,
        "degraded": load.degraded,
        "unanswered": load.unanswered,
        "latency_ms": percentiles(load.latencies),
        "by_kind_ms": by_kind,
        "load_average": [round(before, 2), round(os.getloadavg()[0], 2)],
        "generator_cpu_us": round(1e6 * time.process_time() / max(1, len(load.latencies)), 1),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "at": time.strftime("%Y-%m-%d"),
    }
    if args.pid:
        row["cpu_us"], row["stages_ms"] = load.by_stage(), load.waits()
        row["server_mb"] = [round(memory, 1), round(memory_of(args.pid), 1)]
        row["server_file_mb"] = round(memory_of(args.pid, "Pss_File"), 1)
        row["workers"], row["ready_s"] = args.workers, None if ready is None else round(ready, 2)
    return row


if __name__ == "__main__":
    main()
