"""A server of the tests: a real socket, in a thread of this process."""

import contextlib
import socket
import threading
import time

import uvicorn

from nextsession.serving.app import application
from nextsession.serving.straight import straight_protocol


@contextlib.contextmanager
def listening(server):
    """Serve until the block ends; give the address."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    app = application(server)
    http = straight_protocol(app.state.straight)
    running = uvicorn.Server(uvicorn.Config(app, http=http, ws="none", log_config=None, lifespan="on"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()
        sock.close()
