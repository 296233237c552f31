"""Load a server the way visitors do: open loop, with a ramp, Zipf visitors, and order within each visitor.

    python benchmarks/load.py http://127.0.0.1:8000 --rate 1000 --seconds 30 --items 1000000 --pid 4711

Requests arrive when they arrive (a Poisson process), whether or not earlier ones were answered: a
closed loop would wait for a slow server and so hide how long others had to.  A latency counts from
the instant at which the request should have been sent.  Visitors are drawn by Zipf's law; a
visitor's next request waits for the answer to the one before, and that wait counts too.

Of the requests, a share (`--events`) records an event, the others ask for a list and record an
event on the way (`--alone`: without).  With `--pid` the CPU time of the server and of its workers
is read from /proc.  The last line is the result as JSON; `--out` adds it to a file of rows.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import time
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
            if args.pid and at >= args.ramp and not hasattr(self, "cpu_from"):
                self.cpu_from, self.counted_from = cpu_of(args.pid), i
        self.cpu_to, self.counted_to = (cpu_of(args.pid), i) if args.pid else (0, i)
        if tasks:
            await asyncio.wait(tasks, timeout=30)
        self.unanswered = len(tasks)
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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


def cpu_of(pid):
    """Return the CPU seconds that a process and its descendants have used."""
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_of(pid):
    """Return the proportional set size (MB) of a process and its descendants: shared pages are counted once."""
    total = 0
    for one in family(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def percentiles(values):
    """Return percentiles in milliseconds."""
    shares = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9}
    return {name: round(1000 * float(np.percentile(values, q)), 3) for name, q in shares.items()} if values else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=1000, help="requests a second after the ramp")
    parser.add_argument("--ramp", type=float, default=5, help="seconds until the rate is reached; not measured")
    parser.add_argument("--seconds", type=float, default=30, help="measured seconds")
    parser.add_argument("--events", type=float, default=0.3, help="share of requests that only record an event")
    parser.add_argument("--alone", action="store_true", help="lists without an event on the way")
    parser.add_argument("--visitors", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=100_000, help="items are the numbers below this")
    parser.add_argument("--zipf", type=float, default=0.8, help="exponent of visitors and items")
    parser.add_argument("--names", help="a JSON file with a list of ids, in place of numbers")
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pid", type=int, help="the server, to read its CPU time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", default="")
    parser.add_argument("--out", type=Path, help="a JSON file of rows to add the result to")
    args = parser.parse_args()
    random.seed(args.seed)
    load = Load(args)
    try:
        import uvloop

        runner = uvloop.run
    except ModuleNotFoundError:
        runner = asyncio.run
    before = os.getloadavg()[0]
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
        "generator_cpu_s": round(time.process_time(), 1),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "at": time.strftime("%Y-%m-%d"),
    }
    if args.pid:
        row["server_cpu_us_per_request"] = round(
            1e6 * (load.cpu_to - load.cpu_from) / max(1, load.counted_to - load.counted_from), 1
        )
        row["server_mb"] = round(memory_of(args.pid), 1)
    print(json.dumps(row))
    if args.out:
        rows = json.loads(args.out.read_text()) if args.out.exists() else []
        args.out.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
