"""A Redis of the tests: a real server, on a socket in a folder of its own."""

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

BINARY = shutil.which("redis-server")
needed = pytest.mark.skipif(BINARY is None, reason="there is no redis-server (Debian: apt-get install redis-server)")


class RedisServer:
    """Started, stopped, frozen and killed as a test likes; what it stored stays."""

    def __init__(self, folder, **settings):
        self.folder = Path(folder)
        self._short = tempfile.TemporaryDirectory(prefix="redis")  # names of sockets must be short
        self.socket = Path(self._short.name) / "socket"
        self.url = f"unix://{self.socket}?db=0"
        self.settings = {"appendonly": "yes", "appendfsync": "always", "save": "", **settings}
        self.process = None

    def start(self):
        options = [part for name, value in self.settings.items() for part in (f"--{name}", value)]
        command = [BINARY, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        from redis import Redis
        from redis.exceptions import RedisError

        for _ in range(400):
            try:
                with Redis.from_url(self.url) as redis:
                    redis.ping()
                return self
            except (OSError, RedisError):
                time.sleep(0.025)
        raise AssertionError("the Redis of the tests does not start")

    def send(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.send(signal.SIGKILL)
        self.process.wait()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.kill()
        self._short.cleanup()
