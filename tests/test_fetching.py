"""Videos from addresses, pipes and file objects: a server on this machine that is slow, endless, packed or broken."""

import gzip
import io
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from avad_hf.media import fetching
from avad_hf.media.decode import MediaError
from avad_hf.media.sources import open_media


class Server(ThreadingHTTPServer):
    """Answers as the path says; `data` is the video."""

    data = b""
    daemon_threads = True


class Answers(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, data = self.path.split("?")[0], self.server.data
        if path == "/moved":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        if path not in ("/video", "/packed", "/bomb", "/endless", "/still", "/slow"):
            self.send_error(404)
            return
        self.send_response(200)
        packed = {"/packed": data, "/bomb": bytes(20 << 20)}
        body = gzip.compress(packed[path]) if path in packed else data
        if path in packed:
            self.send_header("Content-Encoding", "gzip")
        if path != "/endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            if path == "/endless":
                while True:
                    self.wfile.write(bytes(1 << 16))
            elif path == "/still":
                self.wfile.write(body[:1000])
                self.wfile.flush()
                self.server.stopped.wait(30)
            elif path == "/slow":  # longer than it may be still, in all
                for begin in range(0, len(body), len(body) // 8):
                    self.wfile.write(body[begin : begin + len(body) // 8])
                    self.wfile.flush()
                    time.sleep(0.35)
            else:
                self.wfile.write(body)
        except OSError:  # whoever asked has gone
            pass


@pytest.fixture(scope="module")
def server(bikes):
    with open(bikes, "rb") as file:
        data = file.read()
    with Server(("127.0.0.1", 0), Answers) as server:
        server.data, server.stopped = data, threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.stopped.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _temporary_files_here(tmp_path, monkeypatch):
    """Whatever happens, nothing of a copy stays."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["/video", "/packed", "/slow"])
def test_what_a_server_sends_is_read(server, path, monkeypatch):
    monkeypatch.setattr(fetching, "MAX_STILL_S", 2.0)
    with open_media(server + path) as media:
        assert (media.info.name, media.info.width, media.num_frames()) == (server + path, 640, 250)


def refused(address) -> str:
    with pytest.raises(MediaError) as caught, open_media(address):
        pass
    return str(caught.value)


@pytest.mark.parametrize("path", ["/bomb", "/endless"])
def test_a_size_that_can_be_raised(server, path, monkeypatch):
    monkeypatch.setenv("AVAD_HF_MAX_COPY_BYTES", "2e6")
    words = refused(server + path)
    assert "does not end after 2,000,000 bytes" in words and "AVAD_HF_MAX_COPY_BYTES" in words
    monkeypatch.setenv("AVAD_HF_MAX_COPY_BYTES", "plenty")
    assert "AVAD_HF_MAX_COPY_BYTES=plenty is no bound" in refused(server + path)


def test_a_server_that_stands_still(server, monkeypatch):
    monkeypatch.setattr(fetching, "MAX_STILL_S", 0.3)
    assert f"{server}/still cannot be fetched (nothing arrived for 0.3 s)" in refused(server + "/still")


def test_nothing_there(server):
    assert f"{server}/nothing cannot be fetched" in refused(server + "/nothing")
    assert "cannot be fetched (ClientConnector" in refused("http://127.0.0.1:1/video")
    # A server cannot send the reader to a file of its host.
    assert "cannot be fetched" in refused(server + "/moved")


def test_passwords_and_signatures_are_not_shown(server):
    address = server.replace("//", "//name:secret@") + "/nothing?signature=secret"
    assert "secret" not in refused(address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://", "names no host"),
        ("http://[::1", "malformed"),
        ("http://example.org:99999/a.mp4", "malformed"),
        ("ht!tp://example.org/a.mp4", "protocol from which no video is read"),
        ("reference://?fo=list.json", "protocol from which no video is read"),
        ("simplecache::http://example.org/a.mp4", "protocol from which no video is read"),
        ("rtsp://example.org/camera", "protocol from which no video is read"),
        ("concat:a.ts|b.ts", "no such file"),
    ],
)
def test_addresses_that_are_none(address, words):
    assert words in refused(address)


def test_a_file_url_is_its_path(bikes):
    with open_media("file://" + bikes) as media:
        assert media.info.name == bikes


def test_an_endless_file_object(monkeypatch):
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def read(self, size=-1):
            return bytes(size)

    monkeypatch.setenv("AVAD_HF_MAX_COPY_BYTES", "5e6")
    assert "does not end after 5,000,000 bytes" in refused(Endless())


def test_devices_and_pipes(tmp_path_factory, bikes):
    assert "is a device, pipe or socket" in refused("/dev/zero")
    pipe = str(tmp_path_factory.mktemp("pipe") / "pipe")
    os.mkfifo(pipe)

    def write():
        with open(pipe, "wb") as end, open(bikes, "rb") as file:
            end.write(file.read())

    writer = threading.Thread(target=write)
    writer.start()
    with open_media(pipe) as media:
        assert media.num_frames() == 250
    writer.join()
