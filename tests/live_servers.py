"""Live sources for tests: an RTSP server as a process of its own, and an HTTP server that sends as a camera does."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
MISSING = (
    "needs GStreamer's RTSP server: apt-get install gir1.2-gst-rtsp-server-1.0 gir1.2-gstreamer-1.0 python3-gi "
    "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav"
)


def has_rtsp_server() -> bool:
    """Whether GStreamer's server can be started here."""
    words = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    return (
        bool(shutil.which(SYSTEM_PYTHON))
        and not subprocess.run([SYSTEM_PYTHON, "-c", words], capture_output=True).returncode
    )


needs_rtsp = pytest.mark.skipif(not has_rtsp_server(), reason=MISSING)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


# An HTTP camera holds the line so many seconds after its last piece: FFmpeg gives up a stream that ends while it looks
# what is in it.
HOLD_S = 0.5


class RtspServer:
    """Serves files at ``rtsp://127.0.0.1:PORT/NAME``, in real time."""

    def __init__(self, files: dict[str, str], port: int | None = None):
        self.port, self._files = port or free_port(), files
        self.start()

    def start(self) -> None:
        pairs = [f"{name}={Path(path).resolve()}" for name, path in self._files.items()]
        script = Path(__file__).with_name("rtsp_server.py")
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, str(script), str(self.port), *pairs], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout.readline() == b"ready\n"

    def url(self, name: str, login: str = "") -> str:
        return f"rtsp://{login}127.0.0.1:{self.port}/{name}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def rtsp_server(**files: str) -> Iterator[RtspServer]:
    server = RtspServer(files)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def http_camera(*connections: list, content_type: str = "video/mp2t") -> Iterator[str]:
    """An address that sends to each connection in turn its pieces: bytes, or seconds to wait; and then hangs up.

    After the last connection it takes no more.
    """
    waiting = list(connections)
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pieces = waiting.pop(0) if waiting else []
            if not pieces:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            for piece in pieces:
                if isinstance(piece, bytes):
                    self.wfile.write(piece)
                elif stopped.wait(piece):
                    return
            stopped.wait(HOLD_S)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/live"
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()


def wait_until(condition, seconds: float = 20.0) -> None:
    """Wait until something is so, and fail if it is not after so many seconds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
