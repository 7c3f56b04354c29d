"""Alerts: real receivers that are slow, broken, killed and back get every event, in order; nothing waits for them."""

import base64
import hashlib
import hmac
import json
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from avad_hf.detection.incidents import plain_name
from avad_hf.watching import command as command_module
from avad_hf.watching import json_lines, mqtt, outbox, webhook
from avad_hf.watching.command import Command
from avad_hf.watching.json_lines import JsonLines
from avad_hf.watching.mqtt import Mqtt
from avad_hf.watching.outbox import NotDelivered, Outbox, Rejected
from avad_hf.watching.sinks import parse_address
from avad_hf.watching.webhook import Webhook

SECRET = "only-the-receiver-knows"
PASSWORD = "geheim@/:#"
WRITTEN_PASSWORD = "geheim%40%2F%3A%23"
HOSTILE = ["a\nb", "a/b", "a#b", "a+b", "<script>alert(1)</script>", "x" * 10_000, "\ud800", "{{ 7 * 7 }}", "\0"]


def event(number: int, state: str = "opened", camera: str = "gate", **more) -> dict:
    times = {"start": 1796043600.5, "end": 1796043601.5}
    return {"id": f"gate-{number}", "camera": camera, "state": state, "score": 0.9, "label": "anomaly"} | times | more


def until(condition) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def waiting(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(outbox, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outbox, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(mqtt, "RECONNECT_S", (0.05, 0.05))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def start():
    """`subprocess.Popen`, whose processes end with the test in any case."""
    processes = []

    def start_one(argv, **settings):
        processes.append(subprocess.Popen(argv, **settings))
        return processes[-1]

    yield start_one
    for process in processes:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


@contextmanager
def closing(sink):
    try:
        yield sink
    finally:
        sink.close()


# The outbox: receivers are functions.


class Receiver:
    """Takes events, once it is `there`; `asked` is set by each try."""

    def __init__(self, is_there: bool = True):
        self.events: list[dict] = []
        self.there, self.asked = threading.Event(), threading.Event()
        if is_there:
            self.there.set()

    def fails(self, one: dict) -> None:
        self.asked.set()
        if not self.there.is_set():
            raise NotDelivered("It is away.")
        self.events.append(one)

    def hangs(self, one: dict) -> None:
        self.asked.set()
        self.there.wait()
        self.events.append(one)


def test_events_arrive_in_order_and_their_files_go(tmp_path):
    receiver = Receiver()
    with closing(Outbox(tmp_path / "new" / "box", receiver.fails, "Test")) as box:
        for number in range(20):
            box.send(event(number))
        until(lambda: len(receiver.events) == 20)
    assert receiver.events == [event(number) for number in range(20)]
    assert waiting(tmp_path / "new" / "box") == []
    expected = {"waiting": 0, "delivered": 20, "failed_tries": 0, "dropped": 0, "problem": None}
    assert box.health() == expected


def test_send_returns_while_the_receiver_hangs_and_what_was_sent_is_on_the_disk(tmp_path):
    receiver = Receiver(is_there=False)
    box = Outbox(tmp_path, receiver.hangs, "Test")
    box.send(event(0))
    receiver.asked.wait()
    for number in range(1, 10):
        box.send(event(number))
    assert receiver.events == [] and box.health()["waiting"] == 10
    assert waiting(tmp_path) == [event(number) for number in range(10)]
    receiver.there.set()
    box.close()
    assert receiver.events == [event(number) for number in range(10)]


def test_what_an_absent_receiver_missed_it_gets_after_a_restart(tmp_path, caplog):
    receiver = Receiver(is_there=False)
    box = Outbox(tmp_path, receiver.fails, "Test")
    with pytest.raises(ValueError, match=r"Another process sends the events in .*End it, or give another folder"):
        Outbox(tmp_path, receiver.fails, "Test")
    for number in range(3):
        box.send(event(number))
    until(lambda: box.health()["failed_tries"] > 2)
    assert box.health()["problem"] == "It is away."
    box.close()
    box.send(event(3))
    assert [record.message for record in caplog.records] == [
        "Test: It is away.",
        "Test: 3 events wait for the next start.",
    ]
    receiver.there.set()
    with closing(Outbox(tmp_path, receiver.fails, "Test")) as box:
        box.send(event(4))
    assert receiver.events == [event(number) for number in range(5)]


def test_close_waits_no_longer_than_its_patience(tmp_path):
    receiver = Receiver(is_there=False)
    box = Outbox(tmp_path, receiver.hangs, "Test")
    box.send(event(0))
    box.send(event(1))
    receiver.asked.wait()
    box.close(patience_s=0.05)
    assert receiver.events == [] and waiting(tmp_path) == [event(0), event(1)]
    receiver.there.set()
    until(lambda: not box._thread.is_alive())
    assert receiver.events == [event(0)], "it ends with what it was doing"
    assert waiting(tmp_path) == [event(1)]


def test_a_killed_process_loses_nothing(tmp_path, start):
    code = (
        "import sys, threading; from avad_hf.watching.outbox import Outbox\n"
        "box = Outbox(sys.argv[1], lambda event: threading.Event().wait(), 'Test')\n"
        "for number in range(5): box.send({'id': number, 'state': 'opened'})\n"
        "print('sent', flush=True); threading.Event().wait()"
    )
    process = start([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"sent\n"
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    receiver = Receiver()
    with closing(Outbox(tmp_path, receiver.fails, "Test")) as box:
        box.send(event(5))
    assert [one["id"] for one in receiver.events] == [0, 1, 2, 3, 4, "gate-5"]


def test_rejected_events_and_files_that_hold_none_do_not_stop_the_others(tmp_path, caplog):
    (tmp_path / f"{3:016d}.json").write_text("")  # after a power cut
    (tmp_path / f"{4:016d}.json").write_text("[1]")
    (tmp_path / f"{5:016d}.json").write_text(json.dumps(event(5)))
    (tmp_path / f"{6:016d}.json.partial").write_text("{")
    (tmp_path / "notes.json").write_text("mine")
    events = []

    def deliver(one):
        if one["id"] == "gate-5":
            raise Rejected("The answer is 400.")
        events.append(one)

    with closing(Outbox(tmp_path, deliver, "Test")) as box:
        box.send(event(6))
        until(lambda: events)
    assert box.health() == {"waiting": 0, "delivered": 1, "failed_tries": 0, "dropped": 3, "problem": None}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == ["notes.json"]
    assert caplog.text.count("holds no event, and is removed") == 2
    assert "Test: An event was rejected, and is not sent again. The answer is 400." in caplog.text


def test_errors_of_which_nothing_is_known_are_shown_by_type_alone(tmp_path, caplog):
    def deliver(one):
        raise RuntimeError(f"https://user:{SECRET}@host")

    with closing(Outbox(tmp_path, deliver, "Test")) as box:
        box.send(event(0))
        until(lambda: box.health()["failed_tries"])
        assert box.health()["problem"] == "Sending failed (RuntimeError)."
    assert SECRET not in caplog.text


def test_too_much_costs_updates_first_then_the_oldest(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(outbox, "MOST_BYTES", 6 * len(json.dumps(event(1))) + 10)
    monkeypatch.setattr(outbox, "FIRST_PAUSE_S", 60.0)  # what is being sent is not dropped: nothing is, meanwhile
    receiver = Receiver(is_there=False)
    box = Outbox(tmp_path, receiver.fails, "Test")
    box.send(event(0, "updated"))
    until(lambda: box.health()["failed_tries"])
    for number in range(1, 6):
        box.send(event(number, "opened" if number % 2 else "updated"))
    box.send(event(6))
    assert [one["id"] for one in waiting(tmp_path)] == [f"gate-{n}" for n in (1, 2, 3, 4, 5, 6)]
    for number in (7, 8, 9):
        box.send(event(number))
    assert [one["id"] for one in waiting(tmp_path)] == [f"gate-{n}" for n in (3, 5, 6, 7, 8, 9)]
    assert box.health()["dropped"] == 4 and "bytes wait; 1 events were dropped" in caplog.text
    box.close()
    monkeypatch.setattr(outbox, "MOST_BYTES", 2 * len(json.dumps(event(1))) + 10)
    receiver.there.set()
    Outbox(tmp_path, receiver.fails, "Test").close()
    assert [one["id"] for one in receiver.events] == ["gate-8", "gate-9"]


def test_what_is_being_sent_is_not_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(outbox, "MOST_BYTES", 10)
    receiver = Receiver(is_there=False)
    box = Outbox(tmp_path, receiver.hangs, "Test")
    monkeypatch.setattr(outbox, "MOST_BYTES", 1000)
    box.send(event(0, "updated"))
    receiver.asked.wait()
    monkeypatch.setattr(outbox, "MOST_BYTES", 10)
    box.send(event(1))
    receiver.there.set()
    box.close()
    assert receiver.events == [event(0, "updated")] and box.health()["dropped"] == 1


def test_a_full_disk_holds_events_in_memory_until_there_is_room(tmp_path, monkeypatch, caplog):
    receiver = Receiver(is_there=False)
    box = Outbox(tmp_path, receiver.fails, "Test")
    box.send(event(0))

    def full(self, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        box.send(event(1))
        box.send(event(2))
        assert waiting(tmp_path) == [event(0)]
        words = rf"2 waiting events are held in memory alone: {tmp_path}: No space left on device. Make room."
        assert words in box.health()["problem"] and box.health()["waiting"] == 3
        assert caplog.text.count("held in memory alone") == 1
    box.send(event(3))
    assert waiting(tmp_path) == [event(number) for number in range(4)]
    assert "memory" not in (box.health()["problem"] or "")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        box.send(event(4))
        receiver.there.set()
        until(lambda: len(receiver.events) == 5)
        receiver.there.clear()
        box.send(event(5))
        box.close()
    assert receiver.events == [event(number) for number in range(5)]
    assert "Test: 1 events were not delivered, nor could they be written." in caplog.text


def test_pauses_double_up_to_a_minute_and_differ(monkeypatch):
    monkeypatch.undo()
    firsts = {outbox._pause(1) for _ in range(20)}
    assert len(firsts) > 1 and all(0.5 <= pause <= 1 for pause in firsts)
    assert 2 <= outbox._pause(3) <= 4
    assert all(30 <= outbox._pause(failures) <= 60 for failures in (7, 100_000))


def test_a_folder_that_cannot_be_locked_is_used_nevertheless(tmp_path, monkeypatch, caplog):
    def no_locks(self, timeout):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(outbox.FileLock, "acquire", no_locks)
    receiver = Receiver()
    with closing(Outbox(tmp_path, receiver.fails, "Test")) as box:
        box.send(event(0))
    assert receiver.events == [event(0)]
    assert f"{tmp_path} cannot be locked: start no second watcher on it." in caplog.text


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"file is a file\. Give a folder\."):
        Outbox(tmp_path / "file", print, "Test")


# The webhook: servers of the standard library.


class Answers(BaseHTTPRequestHandler):
    """Answers by the next of the server's statuses, then by 200; "hang" waits for `released`."""

    def do_POST(self):
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.requests.append((dict(self.headers), body))
        answer = server.statuses.pop(0) if server.statuses else 200
        if answer == "hang":
            server.released.wait()
            return
        self.send_response(answer)
        if 300 <= answer < 400:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self):
        raise AssertionError("a redirect was followed")

    def log_message(self, *_):
        pass


@contextmanager
def serving(*statuses):
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.requests, server.statuses, server.released = [], list(statuses), threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}/hook?token={SECRET}"
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()


def bodies(server) -> list[dict]:
    return [json.loads(body) for _, body in server.requests]


@pytest.mark.parametrize("secret", [SECRET, "whsec_" + base64.b64encode(b"\x00\xff binary").decode()])
def test_a_receiver_can_verify_who_sent_an_event_and_when(tmp_path, secret):
    with serving() as server, closing(Webhook(server.url, tmp_path, secret=secret)) as hook:
        hook.send(event(0, camera="Hof Süd"))
        until(lambda: hook.health()["delivered"])
    ((headers, body),) = server.requests
    # As the specification says, https://www.standardwebhooks.com
    key = b"\x00\xff binary" if secret.startswith("whsec_") else secret.encode()
    signed = b".".join([headers["Webhook-Id"].encode(), headers["Webhook-Timestamp"].encode(), body])
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["Webhook-Signature"] == expected
    assert abs(time.time() - int(headers["Webhook-Timestamp"])) < 300
    assert headers["Content-Type"] == "application/json" and json.loads(body) == event(0, camera="Hof Süd")
    assert headers["Idempotency-Key"] == headers["Webhook-Id"]


def test_without_a_secret_nothing_is_signed_and_a_login_is_sent_as_such(tmp_path):
    with serving() as server:
        url = server.url.replace("://", f"://user:{WRITTEN_PASSWORD}@")
        with closing(Webhook(url, tmp_path)) as hook:
            hook.send(event(0))
            until(lambda: hook.health()["delivered"])
    headers = server.requests[0][0]
    assert "Webhook-Signature" not in headers
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == f"user:{PASSWORD}"


def test_answers_that_ask_for_it_are_tried_again_by_the_same_key(tmp_path, caplog):
    statuses = [500, 429, 408, 503, 302]
    with serving(*statuses) as server, closing(Webhook(server.url, tmp_path)) as hook:
        for number in range(3):
            hook.send(event(number))
        until(lambda: hook.health()["delivered"] == 3)
    assert [one["id"] for one in bodies(server)] == ["gate-0"] * 6 + ["gate-1", "gate-2"]
    keys = [headers["Idempotency-Key"] for headers, _ in server.requests]
    assert len(set(keys[:6])) == 1 and len(set(keys)) == 3
    assert hook.health()["failed_tries"] == 5 and hook.health()["problem"] is None
    assert "The answer is 302, a redirect, which is not followed. Give the final address." in caplog.text
    assert "The answer is 500." in caplog.text and SECRET not in caplog.text


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
def test_an_answer_that_refuses_an_event_ends_it(tmp_path, status, caplog):
    with serving(status) as server, closing(Webhook(server.url, tmp_path)) as hook:
        hook.send(event(0))
        hook.send(event(1))
        until(lambda: hook.health()["delivered"])
    assert [one["id"] for one in bodies(server)] == ["gate-0", "gate-1"]
    assert hook.health()["dropped"] == 1 and hook.health()["failed_tries"] == 0
    assert f"not sent again. The answer is {status}." in caplog.text and SECRET not in caplog.text


def test_a_receiver_that_hangs_is_left_and_blocks_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)
    with serving("hang") as server, closing(Webhook(server.url, tmp_path)) as hook:
        hook.send(event(0))
        until(lambda: server.requests)
        for number in range(1, 5):
            hook.send(event(number))
        assert hook.health()["waiting"] == 5
        until(lambda: hook.health()["delivered"] == 5)
    ids = [one["id"] for one in bodies(server)]
    assert ids[:2] == ["gate-0"] * 2 and list(dict.fromkeys(ids)) == [f"gate-{number}" for number in range(5)]
    assert "There is no answer: none within 0.2 s." in caplog.text


# Takes a port and a file, to which each body is added before it is answered; may take the first and hang.
SERVER = """
import http.server, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[2], "ab") as file: file.write(body + b"\\n")
        if sys.argv[3] == "hang": threading.Event().wait()
        self.send_response(204); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_that_is_killed_and_comes_back_gets_everything_in_order(tmp_path, start):
    port, received = free_port(), tmp_path / "received"
    received.touch()

    def serve(how):
        return start([sys.executable, "-c", SERVER, str(port), received, how])

    with closing(Webhook(f"http://127.0.0.1:{port}", tmp_path / "box")) as hook:
        hook.send(event(0))
        until(lambda: hook.health()["failed_tries"])
        assert hook.health()["problem"] == "There is no answer: Connection refused."
        server = serve("hang")
        until(received.read_bytes)
        kill(server)  # before it answers
        for number in range(1, 20):
            hook.send(event(number))
        until(lambda: "Connection refused" in (hook.health()["problem"] or ""))
        server = serve("ok")
        until(lambda: hook.health()["delivered"] == 20)
    ids = [json.loads(line)["id"] for line in received.read_text().splitlines()]
    assert list(dict.fromkeys(ids)) == [f"gate-{number}" for number in range(20)]
    assert len(ids) == 21, "the first once more, as its answer was lost"


def test_a_certificate_that_is_wrong_is_said(tmp_path, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serving() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with closing(Webhook(f"https://127.0.0.1:{server.server_port}/{SECRET}", tmp_path)) as hook:
            hook.send(event(0))
            until(lambda: hook.health()["failed_tries"])
            assert "certificate verify failed" in hook.health()["problem"] and SECRET not in str(hook.health())
        assert server.requests == []


BAD_ADDRESSES = [
    "",
    "127.0.0.1:80",
    "ftp://host",
    "http://",
    f"http://user:{SECRET}",
    f"http://user:{SECRET}/x@host",
    f"http://host:{SECRET}/",
    "http://host:0",
    "http://host:70000",
    f"http://[{SECRET}/",
    f"http://host/{SECRET} x",
    f"http://host/\r\nX: {SECRET}",
    "http://höst",
    f"http://{'x' * 64}.org/{SECRET}",
]


@pytest.mark.parametrize("url", BAD_ADDRESSES)
def test_addresses_that_are_none_are_refused_without_being_repeated(tmp_path, url):
    with pytest.raises(ValueError, match=r"The address of a webhook is https:// or http://, a host, and") as caught:
        Webhook(url, tmp_path)
    said = "".join(map(str, (caught.value, caught.value.__cause__)))
    assert SECRET not in said and "%40 for @ in a password" in said


def test_addresses_show_no_secret():
    address = parse_address(f"https://user:{WRITTEN_PASSWORD}@[::1]/{SECRET}?{SECRET}", {"https": 443}, "a webhook")
    assert str(address) == "https://[::1]:443" and (address.user, address.password) == ("user", PASSWORD)
    assert address.path == f"/{SECRET}?{SECRET}"
    assert SECRET not in repr(address) and "geheim" not in repr(address)


def test_secrets_that_sign_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"The webhook's secret is empty\. Give one of 24 bytes or more, or none\."):
        Webhook("http://host", tmp_path, secret="")
    with pytest.raises(ValueError, match=r"secret begins with whsec_, so its rest must be base64\.") as caught:
        Webhook("http://host", tmp_path, secret=f"whsec_{SECRET}!")
    assert SECRET not in str(caught.value)


# MQTT: real brokers.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with: apt-get install openssl")
    folder = tmp_path_factory.mktemp("certificate")
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(["openssl", "req", "-x509", *kind, *files, *names], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


class Broker:
    """A process that can be killed, and started again on its port."""

    def __init__(self, program: str, folder: Path, start_process, certificate=None, login=None):
        self.port, self.start_process = free_port(), start_process
        folder.mkdir()
        if program == "mosquitto":
            config = folder / "mosquitto.conf"
            config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
            self.argv = [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", config]
        else:
            config = folder / "amqtt.yaml"
            listener = {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}
            if certificate:
                listener |= {"ssl": True, "certfile": str(certificate[0]), "keyfile": str(certificate[1])}
            plugin = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
            if login:
                from pwdlib.hashers.argon2 import Argon2Hasher

                (folder / "users").write_text(f"{login[0]}:{Argon2Hasher().hash(login[1])}\n")
                plugin = {"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(folder / "users")}}
            config.write_text(yaml.safe_dump({"listeners": {"default": listener}, "plugins": plugin}))
            self.argv = [Path(sys.executable).with_name("amqtt"), "-c", config]
        self.start()

    def start(self) -> None:
        quiet = subprocess.DEVNULL
        self.process = self.start_process(self.argv, stdin=quiet, stdout=quiet, stderr=quiet)
        until(self.answers)

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def kill(self) -> None:
        kill(self.process)


class Subscriber:
    """Keeps what a broker sends: the last payload by topic, and all events."""

    def __init__(self, port: int):
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.last: dict[str, str] = {}
        self.events: list[dict] = []
        self.is_subscribed = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self.client.on_subscribe = lambda *_: self.is_subscribed.set()
        self.client.on_message = self.take
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.is_subscribed.wait()

    def take(self, client, userdata, message):
        self.last[message.topic] = message.payload.decode()
        if message.topic.endswith("/event"):
            self.events.append(json.loads(message.payload))

    def state(self, camera: str, prefix: str = "avad-hf") -> dict:
        return json.loads(self.last.get(f"{prefix}/{plain_name(camera)}/state", "{}"))

    def close(self):
        self.client.disconnect()


needs_mosquitto = pytest.mark.skipif(
    not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()),
    reason="there is no mosquitto, the broker of most homes: apt-get install mosquitto",
)


@pytest.fixture(params=["amqtt", pytest.param("mosquitto", marks=needs_mosquitto)])
def broker(request, tmp_path, start):
    return Broker(request.param, tmp_path / "broker", start)


def test_home_assistant_finds_each_camera_and_what_happens_there(tmp_path, broker):
    url = f"mqtt://127.0.0.1:{broker.port}"
    with closing(Subscriber(broker.port)) as home:
        with closing(Mqtt(url, tmp_path / "box", ["gate", "Hof Süd"])) as sink:
            until(lambda: len(home.last) == 7)
            configs = {topic: json.loads(text) for topic, text in home.last.items() if topic.startswith("homeassist")}
            yard = plain_name("Hof Süd")
            assert set(configs) == {
                f"homeassistant/{kind}/avad-hf-{camera}/{what}/config"
                for kind, what in (("binary_sensor", "anomaly"), ("sensor", "score"))
                for camera in ("gate", yard)
            }
            sensor = configs[f"homeassistant/binary_sensor/avad-hf-{yard}/anomaly/config"]
            assert sensor["device"]["name"] == "Hof Süd" and sensor["unique_id"] == f"avad-hf-{yard}-anomaly"
            assert sensor["state_topic"] == f"avad-hf/{yard}/state" in home.last
            assert home.last[sensor["availability_topic"]] == "online"
            assert len({config["unique_id"] for config in configs.values()}) == 4
            assert home.state("gate")["open"] == "OFF" and home.state("gate")["score"] is None
            for state in ("opened", "updated"):
                sink.send(event(0, state))
                until(lambda state=state: home.events and home.events[-1]["state"] == state)
                until(lambda: home.state("gate")["open"] == "ON")
            assert home.state("gate")["score"] == 0.9 and home.state("Hof Süd")["open"] == "OFF"
            with closing(Subscriber(broker.port)) as late:
                until(lambda: late.state("gate"))  # the broker kept it
                assert late.state("gate")["open"] == "ON" and late.events == []
            sink.send(event(0, "closed"))
            until(lambda: home.state("gate")["open"] == "OFF")
        until(lambda: home.last["avad-hf/availability"] == "offline")
    assert [one["state"] for one in home.events] == ["opened", "updated", "closed"]
    assert sink.health() == {"waiting": 0, "delivered": 5, "failed_tries": 0, "dropped": 0, "problem": None}


def test_a_broker_that_is_killed_and_comes_back_knows_all_of_it_again(tmp_path, broker, caplog):
    sink = Mqtt(f"mqtt://127.0.0.1:{broker.port}", tmp_path / "box", ["gate", "yard"])
    sink.send(event(0, camera="yard"))
    sink.send(event(0))
    until(lambda: sink.health()["delivered"] == 4)
    broker.kill()
    for number in range(10):
        sink.send(event(number, "updated"))
    sink.send(event(10, "closed"))
    until(lambda: "refused" in (sink.health()["problem"] or ""))
    assert len(waiting(tmp_path / "box")) == 11
    broker.start()
    with closing(Subscriber(broker.port)) as home:
        until(lambda: sink.health()["delivered"] == 15)
        until(lambda: home.state("gate").get("open") == "OFF" and home.state("yard").get("open") == "ON")
        until(lambda: "homeassistant/sensor/avad-hf-yard/score/config" in home.last)
        assert home.last["avad-hf/availability"] == "online"
        numbers = [int(one["id"].removeprefix("gate-")) for one in home.events]
        assert numbers == sorted(numbers), "in order, though this subscriber may have come after the first"
    sink.close()
    assert sink.health()["waiting"] == 0


# Sends an event, and waits to be killed.
WATCHER = """
import sys, threading
from avad_hf.watching.mqtt import Mqtt
sink = Mqtt(sys.argv[1], sys.argv[2], ["gate"])
sink.send({"id": "gate-0", "camera": "gate", "state": "opened", "score": 0.9})
threading.Event().wait()
"""


def test_the_state_of_a_watcher_that_was_killed_does_not_stay(tmp_path, start):
    broker = Broker("amqtt", tmp_path / "broker", start)
    url, box = f"mqtt://127.0.0.1:{broker.port}", tmp_path / "box"
    with closing(Subscriber(broker.port)) as home:
        process = start([sys.executable, "-c", WATCHER, url, box])
        until(lambda: home.state("gate").get("open") == "ON" and not waiting(box))
        kill(process)
        until(lambda: home.last["avad-hf/availability"] == "offline")  # the will
        (box / f"{7:016d}.json").write_text(json.dumps(event(7)))  # as if it had been killed before sending this
        with closing(Mqtt(url, box, ["gate"])) as sink:
            until(lambda: sink.health()["delivered"] == 2)
            until(lambda: home.state("gate")["open"] == "OFF")
            assert [one["id"] for one in home.events] == ["gate-0", "gate-7"]


def test_hostile_names_of_cameras_stay_in_their_topics(tmp_path, start):
    broker = Broker("amqtt", tmp_path / "broker", start)
    url = f"mqtt://127.0.0.1:{broker.port}"
    with closing(Subscriber(broker.port)) as home, closing(Mqtt(url, tmp_path / "box", HOSTILE)) as sink:
        for camera in HOSTILE:
            sink.send(event(0, camera=camera))
        until(lambda: len(home.events) == len(HOSTILE))
        until(lambda: all(home.state(camera).get("open") == "ON" for camera in HOSTILE))
        until(lambda: len(home.last) == 1 + 4 * len(HOSTILE))
    assert [one["camera"] for one in home.events] == HOSTILE
    assert all(topic.count("/") in (1, 2, 4) for topic in home.last)
    names = [json.loads(text)["device"]["name"] for topic, text in home.last.items() if topic.endswith("/config")]
    assert all(len(name) <= 80 and "\n" not in name for name in names) and r"a\nb" in names


def test_login_and_encryption(tmp_path, start, certificate, monkeypatch, caplog):
    broker = Broker("amqtt", tmp_path / "broker", start, certificate, login=("user", PASSWORD))
    url = f"mqtts://user:{WRITTEN_PASSWORD}@127.0.0.1:{broker.port}"
    with closing(Mqtt(url, tmp_path / "a", ["gate"])) as sink:
        until(lambda: sink.health()["failed_tries"])
        assert "The broker cannot be reached" in sink.health()["problem"]
        assert "certificate verify failed" in sink.health()["problem"]
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with closing(Mqtt(url.replace("%40", "x"), tmp_path / "b", ["gate"])) as sink:
        until(lambda: "refuses" in (sink.health()["problem"] or ""))
        assert "The broker refuses the connection: " in sink.health()["problem"]
    with closing(Mqtt(url, tmp_path / "c", ["gate"])) as sink:
        until(lambda: sink.health()["delivered"] == 1)
    assert "geheim" not in caplog.text


def test_a_broker_that_acknowledges_nothing_gets_an_event_once(tmp_path, monkeypatch):
    monkeypatch.setattr(mqtt, "ACKNOWLEDGE_S", 0.05)
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def mute():
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x20\x02\x00\x00")  # connected
                while data := connection.recv(4096):
                    received.extend(data)

        threading.Thread(target=mute).start()
        sink = Mqtt(f"mqtt://127.0.0.1:{server.getsockname()[1]}", tmp_path, ["gate"])
        until(lambda: sink.health()["failed_tries"] > 3)
        assert sink.health()["problem"] == "The broker did not acknowledge an event within 0.05 s."
        sink.close()
    assert received.count(b'{"open": "OFF"') == 1


def test_what_mqtt_cannot_use_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"The address of an MQTT broker is mqtt:// or mqtts://, a host, and perhaps"):
        Mqtt("http://host", tmp_path, [])
    with pytest.raises(ValueError, match=r"The prefix of topics is 'a/#'\. Give 1 to 40 letters, digits, - and _\."):
        Mqtt("mqtt://host", tmp_path, [], prefix="a/#")
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(ImportError, match=r"paho-mqtt is not installed.* pip install 'avad-hf\[watch\]'"):
        Mqtt("mqtt://host", tmp_path, [])


# The command.

RECORDS = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n'); print('out'); sys.exit({status})"


def test_a_command_gets_each_event_on_its_standard_input_and_no_shell_reads_it(tmp_path, capfd):
    log = tmp_path / "$(touch x); log"
    with closing(Command([sys.executable, "-c", RECORDS.format(status=0), str(log)], tmp_path / "box")) as sink:
        for camera in HOSTILE:
            sink.send(event(0, camera=camera))
        until(lambda: sink.health()["delivered"] == len(HOSTILE))
    assert [json.loads(line) for line in log.read_text().split("\n\n")[:-1]] == [event(0, camera=c) for c in HOSTILE]
    assert capfd.readouterr().out == "", "standard output is for JSON lines"


@pytest.mark.parametrize(("status", "tries"), [(75, 2), (3, 1)])
def test_a_command_that_fails_is_run_again_only_where_it_asks(tmp_path, status, tries, caplog):
    log = tmp_path / "log"
    code = RECORDS.format(status=f"{status} if open(sys.argv[1]).read().count('gate-0') == 1 else 0")
    with closing(Command([sys.executable, "-c", code, str(log)], tmp_path / "box")) as sink:
        sink.send(event(0))
        sink.send(event(1))
        until(lambda: log.exists() and "gate-1" in log.read_text() and not sink.health()["waiting"])
    assert log.read_text().count("gate-0") == tries
    assert sink.health()["failed_tries"] == tries - 1
    assert sink.health()["dropped"] == (0 if status == 75 else 2)
    assert f"The command ended with status {status}." in caplog.text


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# Starts a child, says the numbers of both, and never ends; it does not read what it gets.
HANGS = 'sleep 1000 & echo $$ $! > "$0"; wait'


def test_a_command_that_hangs_is_killed_with_its_group_and_never_two_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(command_module, "TIMEOUT_S", 1.0)
    pids = tmp_path / "pids"
    code = f'if [ -e "$0" ]; then exec cat > "$0.next"; fi; {HANGS}'
    with closing(Command(["sh", "-c", code, str(pids)], tmp_path / "box")) as sink:
        sink.send(event(0, why={"words": "x" * 200_000}))  # more than a pipe holds
        sink.send(event(1))
        until(lambda: len(pids.read_text().split()) == 2 if pids.exists() else False)
        assert not (tmp_path / "pids.next").exists()
        monkeypatch.setattr(command_module, "TIMEOUT_S", 60.0)  # for the second
        until(lambda: sink.health()["delivered"] == 1)
        until(lambda: not any(is_alive(int(pid)) for pid in pids.read_text().split()))
    assert json.loads((tmp_path / "pids.next").read_text()) == event(1)
    assert "not sent again. The command took longer than 60 s, and was killed." in caplog.text


def test_closing_kills_what_runs_and_keeps_its_event(tmp_path, monkeypatch):
    pids = tmp_path / "pids"
    sink = Command(["sh", "-c", HANGS, str(pids)], tmp_path / "box")
    sink.send(event(0))
    until(lambda: len(pids.read_text().split()) == 2 if pids.exists() else False)
    monkeypatch.setattr(Outbox.close, "__defaults__", (0.05,))
    sink.close()
    until(lambda: not any(is_alive(int(pid)) for pid in pids.read_text().split()))
    until(lambda: not sink._outbox._thread.is_alive())
    assert waiting(tmp_path / "box") == [event(0)]


@pytest.mark.parametrize("argv", ["notify --loud", [], ["a\0b"], [3]])
def test_a_command_that_is_no_list_of_words_is_refused(tmp_path, argv):
    with pytest.raises(ValueError, match=r'A command is a list of words, such as \["notify", "--loud"\]'):
        Command(argv, tmp_path)


def test_a_command_that_is_not_there_is_refused_and_one_that_goes_is_waited_for(tmp_path):
    with pytest.raises(
        ValueError, match=r"There is no command 'no-such-command' that can be run. Give its whole path"
    ):
        Command(["no-such-command"], tmp_path)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\ncat > /dev/null\n")
    program.chmod(0o755)
    with closing(Command([str(program)], tmp_path / "box")) as sink:
        program.rename(tmp_path / "away")
        sink.send(event(0))
        until(lambda: sink.health()["failed_tries"])
        assert "The command cannot be started: No such file or directory." in str(sink.health()["problem"])
        (tmp_path / "away").rename(program)
        until(lambda: sink.health()["delivered"])


# JSON lines.


def test_lines_are_added_to_a_file_also_after_it_was_moved_away(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("{}\n")
    sink = JsonLines(path)
    for camera in HOSTILE:
        sink.send(event(0, camera=camera))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{}, *(event(0, camera=c) for c in HOSTILE)]
    path.rename(tmp_path / "events.jsonl.1")
    sink.send(event(1))
    sink.close()
    assert json.loads(path.read_text()) == event(1)
    assert sink.health()["delivered"] == len(HOSTILE) + 1 and sink.health()["problem"] is None


def test_cameras_that_write_at_the_same_time_write_whole_lines(tmp_path):
    sink = JsonLines(tmp_path / "events.jsonl")
    threads = [threading.Thread(target=lambda: [sink.send(event(n)) for n in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert len(lines) == 200 and all(json.loads(line)["camera"] == "gate" for line in lines)


def test_a_full_disk_costs_no_line_and_no_half_of_one(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    sink = JsonLines(path)
    sink.send(event(0))

    def full(descriptor, data, write=os.write):
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:-10])  # the last part finds no room

    with monkeypatch.context() as patch:
        patch.setattr(json_lines.os, "write", full)
        sink.send(event(1))
        sink.send(event(2))
        assert [json.loads(line) for line in path.read_text().splitlines()] == [event(0)]
        assert sink.health() == {
            "waiting": 2,
            "delivered": 1,
            "failed_tries": 2,
            "dropped": 0,
            "problem": f"{path} cannot be written: No space left on device.",
        }
        patch.setattr(json_lines, "MOST_HELD_BYTES", 300)
        sink.send(event(3))
        assert sink.health()["dropped"] == 1
    sink.close()
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["gate-0", "gate-1", "gate-2"]
    assert sink.health()["waiting"] == 0 and sink.health()["problem"] is None


def test_standard_output_gets_lines_and_may_end(monkeypatch, capfdbinary):
    sink = JsonLines("-")
    sink.send(event(0, camera="Süd"))
    assert json.loads(capfdbinary.readouterr().out) == event(0, camera="Süd")
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    sink.send(event(1))
    monkeypatch.undo()
    with suppress(BrokenPipeError):
        stream.close()
    assert sink.health()["problem"] == "Standard output cannot be written: Broken pipe."
    assert sink.health()["dropped"] == 1 and sink.health()["delivered"] == 1 and sink.health()["waiting"] == 0


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "no" / "file", "No such file"),
        ("/dev/null", "no reg"),
    ):
        with pytest.raises(
            OSError, match=rf"{path} cannot be written: .*{reason}.*Give a file, or - for standard out"
        ):
            JsonLines(path)
    with pytest.raises(OSError, match=r"pipe cannot be written: .*Give a file"):
        JsonLines(tmp_path / "pipe")


def test_nothing_of_ours_logs_at_a_level_that_shows_payloads(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG), serving(400, 500) as server:
        url = server.url.replace("://", f"://user:{WRITTEN_PASSWORD}@")
        with closing(Webhook(url, tmp_path, secret=SECRET)) as hook:
            hook.send(event(0))
            hook.send(event(1))
            until(lambda: hook.health()["delivered"])
    assert SECRET not in caplog.text and "geheim" not in caplog.text
