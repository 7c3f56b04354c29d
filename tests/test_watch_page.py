"""The page of a watch: what it shows, who may see it, and what becomes of answers."""

import base64
import csv
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from avad_hf.corpora.manifest import read_manifest
from avad_hf.watching import board as board_module
from avad_hf.watching import server as server_module
from avad_hf.watching.board import MOST_EVENTS, MOST_WAITING, Board
from avad_hf.watching.feedback import Feedback, FeedbackError
from avad_hf.watching.server import PageServer

HOSTILE = '<script>alert("x")</script> "yard" & \'north\'\n'
NAMES = ["gate", HOSTILE]
TOKEN = "correct horse battery \u00e9"
START = 1796043600.0
# Longest wait for what another thread does, in seconds; only a test that fails waits for so long.
PATIENCE_S = 20


def clip(camera="gate", score=0.1, number=0, **more):
    start = START + number
    known = {"start": start, "end": start + 1, "threshold": 0.5, "label": None, "sound_db": -32.5, "lag": 0.8}
    return known | {"camera": camera, "score": score} | more


def event(name="gate-1", camera="gate", state="opened", **more):
    known = {"start": START, "end": START + 12, "peak": START + 3, "score": 0.93, "threshold": 0.5}
    return known | {"id": name, "camera": camera, "state": state, "label": "anomaly", "latency": 1.2} | more


def health(state="live", **more):
    known = {"problem": None, "reconnects": 2, "frames": 100, "clips": 3, "left_out": 4.5, "gaps": 1, "lag": 0.8}
    return known | {"reused": 1, "state": state, "has_audio": True, "width": 1280, "height": 720, "fps": 25.0} | more


@pytest.fixture
def board():
    return Board(NAMES)


@pytest.fixture
def serve(board):
    """Starts a page of the board, and ends all of them."""
    servers = []

    def start(**options):
        servers.append(PageServer(board, **options))
        return urlsplit(servers[-1].start())

    start.servers = servers
    yield start
    for server in servers:
        server.close()


@pytest.fixture
def kept(tmp_path):
    """An evidence folder with one clip, and what keeps answers beside it."""
    evidence = tmp_path / "evidence"
    (evidence / "gate").mkdir(parents=True)
    (evidence / "gate" / "one.mp4").write_bytes(bytes(range(256)) * 4)
    Image.new("RGB", (64, 36), "green").save(evidence / "gate" / "one.jpg")
    return evidence, Feedback(tmp_path / "feedback.csv", evidence)


WITH_CLIP = {"clip": "gate/one.mp4", "snapshot": "gate/one.jpg"}


def ask(url, path, method="GET", body=None, **headers):
    """An answer: status, headers and body. The path goes out as it is."""
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def post(url, content, **headers):
    headers = {"Content_Type": "application/json"} | headers
    status, _, body = ask(
        url, "/feedback", "POST", content if isinstance(content, bytes) else json.dumps(content), **headers
    )
    return status, json.loads(body)


class Stream:
    """An open page: the messages that the server sends to it."""

    def __init__(self, url, receive_buffer=None):
        self.connection = http.client.HTTPConnection(url.hostname, url.port, timeout=PATIENCE_S)
        self.connection.sock = socket.socket()
        if receive_buffer is not None:
            self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.connection.sock.settimeout(PATIENCE_S)
        self.connection.sock.connect((url.hostname, url.port))
        self.connection.request("GET", "/events")
        self.answer = self.connection.getresponse()

    def message(self):
        """Kind and content of the next message."""
        kind = None
        while (line := self.answer.readline()) != b"":
            if line.startswith(b"event: "):
                kind = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                return kind, json.loads(line[6:])
        raise EOFError

    def close(self):
        self.answer.close()
        self.connection.close()


def wait_until(holds):
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


# The board


def test_board_shows_the_newest_of_each_camera_and_is_bounded(board, monkeypatch):
    for number in range(board_module.HISTORY + 5):
        board.clip(clip(score=number / 1000, number=number), None if number else b"first")
    board.clip(clip(HOSTILE, sound_db=None), b"jpeg")
    for number in range(MOST_EVENTS + 3):
        board.event(event(f"e{number}"))
    gate, yard = board.state()["cameras"]
    assert (gate["name"], gate["clip"]["start"]) == ("gate", START + board_module.HISTORY + 4)
    assert gate["scores"] == [number / 1000 for number in range(5, board_module.HISTORY + 5)]
    assert (gate["num_pictures"], board.picture(0), board.picture(1)) == (1, b"first", b"jpeg")
    assert yard["sound_db"] == [None] and yard["health"]["state"] == "starting"
    assert [one["id"] for one in board.state()["events"]] == [f"e{n}" for n in range(MOST_EVENTS + 2, 2, -1)]
    assert board.find_event("e0") is None and board.picture(2) is None and board.picture(-1) is None
    json.dumps(board.state())


def test_board_replaces_an_event_and_keeps_the_answer(board):
    board.event(event(score=0.6, evidence={"snapshot": "gate/one.jpg"}))
    board.event(event(score=0.7))
    assert board.find_event("gate-1")["evidence"] == {"snapshot": "gate/one.jpg"}
    board.answer("gate-1", "right")
    why = {"sight": 0.1, "sound": 0.9, "heat": {"values": [[0.5] * 50] * 50}}
    board.event(event(state="closed", why=why, evidence={"clip": "gate/one.mp4"}))
    (shown,) = board.state()["events"]
    assert (shown["state"], shown["score"], shown["answer"]) == ("closed", 0.93, "right")
    assert (shown["reason"], shown["has_heat"]) == ("sound 90%", True)
    assert shown["evidence"] == WITH_CLIP
    assert "why" not in shown  # hundreds of numbers that the page draws nothing from
    board.event(event("older", state="closed", answer="false_alarm"))  # judged in an earlier run
    assert board.find_event("older")["answer"] == "false_alarm"
    assert board.opened_counts() == {("gate", "anomaly"): 1}
    board.answer("unknown", "right")


def test_a_reader_that_does_not_read_costs_no_memory_and_gets_the_whole_state(board):
    woken = []
    slow, quick = board.subscribe(lambda: woken.append("slow")), board.subscribe(lambda: woken.append("quick"))
    assert [kind for kind, _ in slow.take()] == [kind for kind, _ in quick.take()] == ["state"]
    board.clip(clip(), None)
    assert [kind for kind, _ in quick.take()] == ["clip"]
    for number in range(10 * MOST_WAITING):
        board.clip(clip(number=number), None)
        assert len(quick.take()) == 1
    assert woken.count("slow") == 1 and woken.count("quick") == 10 * MOST_WAITING + 1
    ((kind, text),) = slow.take()
    assert kind == "state" and json.loads(text)["cameras"][0]["clip"]["start"] == START + 10 * MOST_WAITING - 1
    board.health("gate", health())
    assert [kind for kind, _ in slow.take()] == ["health"]
    slow.close()
    board.clip(clip(), None)
    assert slow.take() == []


# The server


def test_page_gets_messages_as_they_come(board, serve):
    stream = Stream(serve())
    assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
    kind, state = stream.message()
    assert kind == "state" and [camera["name"] for camera in state["cameras"]] == NAMES
    board.clip(clip(HOSTILE, 0.7, label="a\u2028b\udc80"), b"jpeg")
    board.health(HOSTILE, health("reconnecting"))
    board.event(event())
    kind, content = stream.message()
    assert (kind, content["number"], content["clip"]["score"], content["num_pictures"]) == ("clip", 1, 0.7, 1)
    assert stream.message() == ("health", {"number": 1, "health": health("reconnecting")})
    assert stream.message()[1]["id"] == "gate-1"
    stream.close()
    wait_until(lambda: not board.subscriptions)


def test_signs_of_life(serve, monkeypatch):
    monkeypatch.setattr(server_module, "BEAT_S", 0.01)
    stream = Stream(serve())
    assert [stream.message()[0] for _ in range(3)] == ["state", "beat", "beat"]


def test_fifty_open_pages_and_no_more(board, serve, monkeypatch):
    monkeypatch.setattr(server_module, "MOST_STREAMS", 50)
    url = serve()
    streams = [Stream(url) for _ in range(50)]
    assert {stream.message()[0] for stream in streams} == {"state"}
    board.event(event())
    assert {stream.message()[1]["id"] for stream in streams} == {"gate-1"}
    status, _, body = ask(url, "/events")
    assert status == 503 and json.loads(body) == {"error": "50 pages are open already. Close some."}
    assert ask(url, "/health")[0] == 503  # no camera is live, and it answers
    for stream in streams:
        stream.close()
    wait_until(lambda: not board.subscriptions)
    assert Stream(url).message()[0] == "state"


def test_a_page_that_does_not_read_blocks_nobody(board, serve):
    url = serve()
    slow, quick = Stream(url, receive_buffer=4096), Stream(url)
    assert quick.message()[0] == "state"
    # More than the operating system holds for the slow one.
    for number in range(3 * MOST_WAITING):
        board.event(event(f"e{number}", label="x" * 20000))
        assert quick.message()[1]["id"] == f"e{number}"
    board.clip(clip(score=0.77), None)
    kinds, newest = [], None
    while newest is None:
        kind, content = slow.message()
        kinds.append(kind)
        newest = content["cameras"][0]["clip"] if kind == "state" else content.get("clip")
    assert newest["score"] == 0.77 and len(kinds) < 3 * MOST_WAITING and kinds.count("state") >= 2


def test_closing_ends_pages_and_the_thread(serve, board, caplog, capfd):
    for number in range(50):  # more than the operating system holds for the one that does not read
        board.event(event(f"e{number}", label="x" * 200000))
    stream, slow = Stream(serve()), Stream(serve(), receive_buffer=4096)
    stream.message()
    for server in serve.servers:
        server.close()
        server.close()
    with pytest.raises((EOFError, http.client.IncompleteRead, ConnectionError)):
        while True:
            stream.message()
    slow.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "avad-hf-page"]
    assert not caplog.records and "Traceback" not in capfd.readouterr().err
    PageServer(board).close()  # never begun


def test_pictures_and_state(board, serve):
    url = serve()
    assert ask(url, "/cameras/0/picture")[0] == 404
    board.clip(clip(HOSTILE), b"\xff\xd8jpeg")
    status, headers, body = ask(url, "/cameras/1/picture?7")
    assert (status, headers["Content-Type"], body) == (200, "image/jpeg", b"\xff\xd8jpeg")
    assert headers["Cache-Control"] == "no-store"
    state = json.loads(ask(url, "/state")[2])
    assert state["cameras"][1]["name"] == HOSTILE and state["cameras"][1]["scores"] == [0.1]


def test_page_may_load_nothing_from_outside(serve):
    status, headers, body = ask(serve(), "/")
    text, policy = body.decode(), headers["Content-Security-Policy"]
    assert status == 200 and headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in policy
    assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write| on[a-z]+=|style=", text)
    assert 'data-answers="no"' in text


def test_evidence_seeks_and_says_what_it_is(serve, kept):
    evidence, _ = kept
    url, data = serve(evidence=evidence), (evidence / "gate" / "one.mp4").read_bytes()
    status, headers, body = ask(url, "/evidence/gate/one.mp4")
    assert (status, headers["Content-Type"], body) == (200, "video/mp4", data)
    assert headers["Accept-Ranges"] == "bytes" and headers["X-Content-Type-Options"] == "nosniff"
    status, headers, body = ask(url, "/evidence/gate/one.mp4", Range="bytes=100-199")
    assert (status, headers["Content-Range"], body) == (206, "bytes 100-199/1024", data[100:200])
    assert ask(url, "/evidence/gate/one.mp4", Range="bytes=1000-")[2] == data[1000:]
    assert ask(url, "/evidence/gate/one.mp4", Range="bytes=5000-")[0] == 416
    assert ask(url, "/evidence/gate/one.jpg")[1]["Content-Type"] == "image/jpeg"


def test_evidence_gives_out_nothing_else(serve, kept):
    evidence, _ = kept
    secret = evidence.parent / "secret.json"
    secret.write_text("secret")
    (evidence / "link.json").symlink_to(secret)
    (evidence / "way").symlink_to(evidence.parent)
    (evidence / "circle.json").symlink_to(evidence / "circle.json")
    (evidence / "notes.txt").write_text("secret")
    (evidence / "folder.json").mkdir()
    url = serve(evidence=evidence)
    for path in (
        *("../secret.json", "..%2fsecret.json", "%2e%2e/secret.json", "gate/../../secret.json", "..%5csecret.json"),
        *(str(secret), f"/{secret}", "link.json", "way/secret.json", "circle.json", "notes.txt", "folder.json", ""),
        *("a%00.json", "x" * 5000 + ".json", "%ff%fe.json", "gate"),
    ):
        status, _, body = ask(url, f"/evidence/{path}")
        assert status == 404 and b"There is no such file" in body, path
    assert ask(serve(), "/evidence/gate/one.mp4")[0] == 404  # no folder


def test_nothing_but_the_routes(serve):
    url = serve()
    for path in ("/docs", "/openapi.json", "/redoc", "/page.html", "/cameras/x/picture", "/cameras/99999999/picture"):
        assert ask(url, path)[0] in (404, 422), path
    assert ask(url, "/feedback")[0] == 405 and ask(url, "/state", "DELETE")[0] == 405
    assert ask(url, "/login", "POST")[0] == 404


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\x16\x03\x01 nothing\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: " + b"x" * 40000,  # it never ends
        b"GET /" + b"x" * 40000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /feedback HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /feedback HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_request_is_refused(serve, garbage, caplog):
    url = serve()
    with socket.create_connection((url.hostname, url.port), timeout=PATIENCE_S) as connection:
        connection.sendall(garbage)
        reply = connection.recv(65536)
    assert re.match(rb"HTTP/1.1 4\d\d ", reply)
    assert ask(url, "/")[0] == 200
    assert not [record for record in caplog.records if record.exc_info]


# Who may see it


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "", "camera.example", "127.1"])
def test_other_addresses_need_a_token(board, host):
    with pytest.raises(ValueError, match=r"where other machines reach it, without a token\. Give a token of at least"):
        PageServer(board, host=host)


def test_a_short_token_is_refused(board):
    with pytest.raises(ValueError, match=r"has 15 characters\. Give one of at least 16") as refusal:
        PageServer(board, token="x" * 15)
    assert "xxx" not in str(refusal.value)


def test_an_address_in_use_is_refused(board, serve):
    url = serve()
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1, port {url.port}: .*Give another port"):
        PageServer(board, port=url.port).start()
    with pytest.raises(OSError, match=r"cannot listen on no-such-host\.invalid, port 0"):
        PageServer(board, host="no-such-host.invalid", token=TOKEN).start()


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_a_missing_package_is_named(board, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package}, which is not installed\. Install it: pip install 'avad"):
        PageServer(board).start()


def test_every_route_but_health_needs_the_token(board, serve, kept, caplog):
    evidence, feedback = kept
    board.clip(clip(), b"jpeg")
    url = serve(host="0.0.0.0", token=TOKEN, evidence=evidence, feedback=feedback)
    url = url._replace(netloc=f"127.0.0.1:{url.port}")
    secret = TOKEN.encode().decode("latin-1")  # as http.client takes headers
    for path in ("/state", "/events", "/cameras/0/picture", "/evidence/gate/one.mp4", "/metrics", "/nothing"):
        for headers in (
            {},
            {"Authorization": f"Bearer {secret}x"},
            {"Authorization": f"Basic {secret}"},
            {"Authorization": "Bearer "},
            {"Cookie": f"avad_hf_{url.port}={'0' * 64}"},
            {"Cookie": f"avad_hf_{url.port}=\xff\xfe; ;;="},
        ):
            status, headers, body = ask(url, path, **headers)
            assert status == 401 and b"A token is needed" in body and headers["WWW-Authenticate"] == "Bearer"
    assert post(url, {"id": "gate-1", "answer": "right"})[0] == 401
    status, headers, body = ask(url, "/")
    assert status == 401 and b'type="password"' in body and b"gate" not in body
    assert ask(url, "/metrics", Authorization=f"Bearer {secret}")[0] == 200
    assert ask(url, "/state", Authorization=f"bearer  {secret}", Host="camera.example")[0] == 200
    status, _, body = ask(url, "/health")
    assert status == 503 and b"gate" not in body and set(json.loads(body)) >= {"status", "cameras"}
    assert TOKEN not in caplog.text and secret not in caplog.text


def test_login_by_the_form(serve, board):
    url = serve(token=TOKEN)

    def login(token):
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        return ask(url, "/login", "POST", urlencode({"token": token}), **form)

    for wrong in ("", "x", TOKEN + "x", "\udcff"):
        status, headers, body = login(wrong.encode("utf-8", "surrogateescape"))
        assert status == 401 and b"This is not the token." in body and "Set-Cookie" not in headers
    assert ask(url, "/login", "POST", "a=1&b=2&c=3")[0] == 401
    assert ask(url, "/login", "POST", b"token=" + b"x" * 10000)[0] == 413
    status, headers, _ = login(TOKEN)
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and "correct" not in cookie
    cookie = cookie.partition(";")[0]
    assert ask(url, "/", Cookie=cookie)[0] == 200 and ask(url, "/state", Cookie=f"a=b; {cookie}")[0] == 200
    other = serve(token=TOKEN + " another")
    assert ask(other, "/state", Cookie=cookie)[0] == 401


def test_other_names_for_this_machine_are_refused(serve):
    """A foreign page whose name points to 127.0.0.1 (DNS rebinding) must not be read as ours."""
    url = serve()
    for host in ("evil.example", f"evil.example:{url.port}", "127.0.0.1.evil.example", "[::1", "a b", "10.0.0.1", ""):
        status, _, body = ask(url, "/state", Host=host)
        assert status in (400, 403) and b"gate" not in body, host
    assert b"under the name 127.0.0.1 or localhost alone" in ask(url, "/state", Host="evil.example")[2]
    for host in ("localhost", f"127.0.0.1:{url.port}", "[::1]:80", "LOCALHOST:9000"):
        assert ask(url, "/state", Host=host)[0] == 200, host


def test_answers_come_from_the_page_alone(serve, board, kept):
    evidence, feedback = kept
    url = serve(evidence=evidence, feedback=feedback)
    board.event(event(evidence=WITH_CLIP))
    content = {"id": "gate-1", "answer": "right"}
    for origin in (
        "http://evil.example",
        "null",
        "",
        f"http://localhost:{url.port}",
        "http://[",
        "http://127.0.0.1:1",
    ):
        status, body = post(url, content, Origin=origin)
        assert (status, body["error"]) == (
            403,
            "Answers are taken from this page alone, not from pages of other sites.",
        )
    # What a form of another site can send without asking.
    assert post(url, content, Content_Type="text/plain")[0] == 415
    assert not feedback.answers
    assert post(url, content, Origin=f"http://127.0.0.1:{url.port}")[0] == 200
    assert feedback.answers == {"gate-1": "right"}


# Answers


def test_answers_are_kept_and_shown(serve, board, kept):
    evidence, feedback = kept
    url = serve(evidence=evidence, feedback=feedback)
    board.event(event(evidence=WITH_CLIP))
    stream = Stream(url)
    stream.message()
    assert post(url, {"id": "gate-1", "answer": "false_alarm"}) == (200, {"id": "gate-1", "answer": "false_alarm"})
    assert stream.message()[1]["answer"] == "false_alarm"
    assert b'data-answers="yes"' in ask(url, "/")[2]


def test_answers_that_cannot_be_kept_are_refused_in_words(serve, board, kept, monkeypatch):
    evidence, feedback = kept
    url = serve(evidence=evidence, feedback=feedback)
    for garbage in (b"", b"{", b"[]", b"\xff\xfe", b'{"id": 1, "answer": "right"}', b'{"id": "gate-1"}', b"[" * 4000):
        status, body = post(url, garbage)
        assert status == 400 and "Send an answer such as" in body["error"]
    assert post(url, b"x" * 5000)[0] == 413
    assert "is not listed any more" in post(url, {"id": "gone", "answer": "right"})[1]["error"]
    board.event(event())
    status, body = post(url, {"id": "gate-1", "answer": "right"})
    assert status == 409 and body["error"].startswith("This event has no clip yet") and "Wait until" in body["error"]
    board.event(event(evidence=WITH_CLIP))
    status, body = post(url, {"id": "gate-1", "answer": "maybe"})
    assert (status, body["error"]) == (409, "The answer is 'maybe'. It must be false_alarm or right.")
    monkeypatch.setattr("avad_hf.files.os.fsync", full)
    status, body = post(url, {"id": "gate-1", "answer": "right"})
    assert status == 507 and "The answer was not kept" in body["error"] and "make room" in body["error"]
    assert not feedback.answers and board.find_event("gate-1")["answer"] is None
    status, body = post(serve(), {"id": "gate-1", "answer": "right"})
    assert status == 404 and "Start avad-hf watch with an evidence folder" in body["error"]


def full(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_client_that_goes_away_leaves_no_traceback(serve, board, caplog):
    url = serve()
    head = b"POST /feedback HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for rest in (b"Content-Length: 100\r\n\r\nx", b"Transfer-Encoding: chunked\r\n\r\n2\r\nxx\r\n"):
        with socket.create_connection((url.hostname, url.port), timeout=PATIENCE_S) as connection:
            connection.sendall(head + rest)
            assert ask(url, "/")[0] == 200  # it has begun to read the other
            if b"chunked" in rest:
                connection.sendall(b"zz\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert ask(url, "/")[0] == 200
    serve.servers[0].close()
    assert not [record for record in caplog.records if record.exc_info]


def test_a_huge_body_is_cut_off(serve):
    url = serve()
    with socket.create_connection((url.hostname, url.port), timeout=PATIENCE_S) as connection:
        connection.sendall(
            b"POST /feedback HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")  # though the body has not ended
    assert ask(url, "/")[0] == 200


def test_answers_are_a_manifest(kept, tmp_path):
    evidence, feedback = kept
    (evidence / "yard").mkdir()
    shutil.copy(evidence / "gate" / "one.mp4", evidence / "yard" / "two.mp4")
    feedback.answer(event(evidence=WITH_CLIP), "right")
    two = event(f"{HOSTILE}-2", HOSTILE, "closed", evidence={"clip": "yard/two.mp4"})
    feedback.answer(two, "right")
    feedback.answer(event(evidence=WITH_CLIP), "false_alarm")
    gate, yard = read_manifest(tmp_path / "feedback.csv")
    assert (gate["id"], gate["label"], gate["anomaly"], gate["group"]) == ("gate-1", "normal", 0, "gate")
    assert gate["video"] == str(evidence / "gate" / "one.mp4")
    assert (yard["label"], yard["anomaly"], yard["group"]) == ("anomalous", 1, HOSTILE.replace("\n", "\\n"))
    assert not list(tmp_path.glob("*.partial"))
    # A later run goes on, and what retention removed is left out.
    (evidence / "gate" / "one.mp4").unlink()
    later = Feedback(tmp_path / "feedback.csv", evidence)
    assert later.answers["gate-1"] == "false_alarm" and len(later.answers) == 2
    feedback.answer(two, "right")
    assert list(feedback.answers) == [yard["id"]]
    later.drop_removed()
    assert list(later.answers) == [yard["id"]]
    assert [row["id"] for row in read_manifest(tmp_path / "feedback.csv")] == [yard["id"]]
    with pytest.raises(FeedbackError, match="The clip of this event was removed"):
        later.answer(event(evidence=WITH_CLIP), "right")
    with pytest.raises(FeedbackError, match=r"has no clip.*Keep evidence \(a folder\), then answer"):
        later.answer(event(state="closed"), "right")


def test_a_full_disk_loses_no_answer(kept, tmp_path, monkeypatch):
    _, feedback = kept
    feedback.answer(event(evidence=WITH_CLIP), "right")
    before = (tmp_path / "feedback.csv").read_bytes()
    monkeypatch.setattr("avad_hf.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        feedback.answer(event(evidence=WITH_CLIP), "false_alarm")
    assert feedback.answers == {"gate-1": "right"} and (tmp_path / "feedback.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"video,label\na.mp4,normal\n", "holds something other than answers to alerts, and is not overwritten"),
        (b"id,video,label,group\na,a.mp4,fight,gate\n", "its labels normal or anomalous"),
        (b"id,video,label,group\na,a.mp4,normal\n", "holds something other"),
        (b"id,video,label,group\na,a.mp4,normal,gate,more\n", "holds something other"),
        (b"id,video\xff\n", "is no CSV file in UTF-8"),
        (b'id,video,label,group\na,"a.mp4', "is no CSV file in UTF-8"),
    ],
)
def test_a_file_of_something_else_is_not_overwritten(tmp_path, content, words):
    path = tmp_path / "feedback.csv"
    path.write_bytes(content)
    with pytest.raises(FeedbackError, match=words):
        Feedback(path, tmp_path)
    assert path.read_bytes() == content


# What machines read


def test_metrics(board, serve):
    board.health("gate", health())
    board.health(HOSTILE, health("reconnecting", lag=None, frames=7))
    for score in (0.0, 0.0005, 0.2, 0.2, 0.96, 1.5):
        board.clip(clip(score=score), None)
    board.event(event("a", HOSTILE, label=None))
    board.event(event("a", HOSTILE, "closed", label=None))
    board.event(event("b", label='quo"te'))
    sinks = {'hook "one"': {"waiting": 3, "delivered": 5, "failed_tries": 2, "dropped": 1, "problem": "gone"}}
    status, headers, body = ask(serve(sinks_health=lambda: sinks), "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain")
    samples = {
        (sample.name.removeprefix("avad_hf_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    yard = HOSTILE.replace("\n", "\\n")
    assert samples["camera_up", "gate"] == 1 and samples["camera_up", yard] == 0
    assert samples["frames_total", "gate"] == 100 and samples["frames_total", yard] == 7
    assert samples["left_out_seconds_total", "gate"] == 4.5 and samples["gaps_total", "gate"] == 1
    assert samples["clips_total", "gate"] == 3 and samples["reconnects_total", "gate"] == 2
    assert samples["clips_reused_total", "gate"] == 1
    assert samples["lag_seconds", "gate"] == 0.8 and ("lag_seconds", yard) not in samples
    assert samples["events_total", yard, ""] == 1 and samples["events_total", "gate", 'quo"te'] == 1
    assert samples["score_count", yard] == 0
    bins = {
        limit: samples["score_bucket", "gate", limit] for limit in ("0.0001", "0.15", "0.2", "0.97", "1.0", "+Inf")
    }
    assert list(bins.values()) == [1, 2, 4, 5, 5, 6]
    assert samples["score_count", "gate"] == 6 and samples["score_sum", "gate"] == pytest.approx(2.8605)
    assert samples["alerts_waiting", 'hook "one"'] == 3 and samples["alerts_delivered_total", 'hook "one"'] == 5
    assert samples["alerts_failed_tries_total", 'hook "one"'] == 2
    assert samples["alerts_dropped_total", 'hook "one"'] == 1


def test_health_tells_trouble_from_none(board, serve, monkeypatch):
    sinks = {"hook": {"waiting": 2, "problem": None}}
    url = serve(sinks_health=lambda: sinks)

    def asked():
        status, _, body = ask(url, "/health")
        return status, json.loads(body)

    assert asked()[0] == 503 and asked()[1]["cameras_in_trouble"] == 2  # they start
    board.health("gate", health())
    board.health(HOSTILE, health("ended"))
    assert asked() == (
        200,
        {
            **{"status": "ok", "cameras": 2, "cameras_in_trouble": 0},
            **{"sinks": 1, "sinks_in_trouble": 0, "alerts_waiting": 2},
        },
    )
    sinks["hook"]["problem"] = "The receiver does not answer."
    assert asked()[0] == 503 and asked()[1]["sinks_in_trouble"] == 1
    sinks["hook"]["problem"] = None
    monkeypatch.setattr(board_module, "LONGEST_QUIET_S", -1.0)
    assert board.troubled() == ["gate"] and asked()[0] == 503  # live, and no clip comes
    monkeypatch.undo()
    board.health("gate", health("reconnecting"))
    assert asked()[0] == 503 and asked()[1]["status"] == "trouble"


# The page in a browser


@pytest.fixture
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


def test_an_operator_with_a_phone_and_a_keyboard(board, serve, kept, bunny, browser, tmp_path):
    evidence, feedback = kept
    shutil.copy(bunny, evidence / "gate" / "one.mp4")
    url = serve(evidence=evidence, feedback=feedback)
    page = browser.new_context(
        viewport={"width": 360, "height": 740}, timezone_id="Asia/Tokyo", locale="en-GB", reduced_motion="reduce"
    ).new_page()
    wrong, hosts = [], set()
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.goto(url.geturl())

    # Nothing has happened, and the page says what that means.
    page.get_by_text("That does not prove that nothing happened").wait_for()
    yard = page.locator(".camera").nth(1)
    assert yard.locator("h3").text_content() == HOSTILE and page.locator("h3 script").count() == 0

    # Scores move.
    board.health(HOSTILE, health("reconnecting", problem="The camera does not answer.", fps=None))
    board.health("gate", health())
    board.clip(clip(HOSTILE, 0.25, sound_db=None), (evidence / "gate" / "one.jpg").read_bytes())
    yard.get_by_text("0.25").wait_for()
    board.clip(clip(HOSTILE, 0.75, sound_db=None), None)
    yard.get_by_text("0.75").wait_for()
    assert "newest 0.75, threshold 0.50" in yard.locator("svg").get_attribute("aria-label")
    assert yard.locator(".sound").text_content() == "none"
    yard.get_by_text("The camera does not answer.").wait_for()
    yard.get_by_text("1280 \u00d7 720, with sound.").wait_for()
    page.get_by_text("1280 \u00d7 720 at 25 frames a second, with sound. Scores come 0.8 s after").wait_for()
    page.get_by_text("4.5 s left out because computing was behind").first.wait_for()
    wait_until(lambda: yard.locator("img").evaluate("picture => picture.naturalWidth === 64"))

    dimmed = page.locator(".camera img").evaluate_all("all => all.map(one => getComputedStyle(one).opacity)")
    assert dimmed == ["1", "0.5"]  # the second is not live

    # An event appears, and is read out.
    words = {"seen": [{"label": "<b>riding</b>", "score": 0.62}], "why": {"sight": 0.1, "sound": 0.9}}
    board.event(event("yard-1", HOSTILE, start=START - 60, **words))
    board.event(event(state="closed", evidence=WITH_CLIP))
    gate = page.locator(".event", has_text="at gate")
    gate.get_by_text("False alarm", exact=True).wait_for()
    assert "at gate" in page.locator("#news").text_content()
    shown = page.locator(".event", has_text="<b>riding</b> 62%")
    assert shown.locator(".reason").text_content() == "Why: sound 90%."
    assert page.locator(".event h3 .label").all_text_contents() == ["Anomaly", "Anomaly"]
    assert shown.get_by_text("False alarm", exact=True).is_hidden()  # there is no clip to judge
    clock = datetime.fromtimestamp(START, UTC).astimezone(ZoneInfo("Asia/Tokyo"))
    assert f"{clock:%H:%M:%S}" in gate.locator(".when").text_content()

    # Its clip plays on while other news comes.
    gate.locator("video").evaluate(
        """video => {
            for (const kind of ["pause", "emptied"]) video.addEventListener(kind, () => video.title += kind);
            video.muted = video.loop = true;
            return video.play();
        }"""
    )
    board.event(event("yard-2", HOSTILE, start=START + 60))
    board.event(event(state="closed", score=0.95, evidence=WITH_CLIP))
    gate.get_by_text("Score 0.95, threshold 0.50. Noticed 1.2 s after the picture.").wait_for()
    wait_until(lambda: gate.locator("video").evaluate("video => video.currentTime > 0.2"))
    assert gate.locator("video").evaluate("video => video.title") == "" and page.title() == "(2) avad-hf watch"

    # It is judged by keyboard alone, with the focus in sight.
    page.locator("#filter").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.value") == "false_alarm":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    gate.get_by_text("Saved: false alarm.").wait_for()
    board.event(event("yard-3", HOSTILE, start=START - 120))
    wait_until(lambda: page.locator(".event").count() == 4)
    assert page.evaluate("document.activeElement.value") == "false_alarm"  # other news leaves the focus
    pressed = gate.locator("button").evaluate_all("all => all.map(one => one.getAttribute('aria-pressed'))")
    assert pressed == ["false", "true"]
    with open(tmp_path / "feedback.csv", newline="") as file:
        assert [(row["id"], row["label"]) for row in csv.DictReader(file)] == [("gate-1", "normal")]

    # It fits a phone, by day and by night.
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(244, 246, 249)", "rgb(20, 24, 30)"]

    # One camera alone.
    page.locator("#filter").select_option("gate")
    assert page.locator(".camera:visible").count() == page.locator(".event:visible").count() == 1
    page.locator("#filter").select_option("")

    # The connection is lost, and comes back.
    serve.servers[-1].close()
    page.get_by_text("The connection was lost at").wait_for()
    serve(port=url.port, evidence=evidence, feedback=feedback)
    page.get_by_text("Connected again at").wait_for()
    assert page.locator(".event").count() == 4 and gate.get_by_text("Saved: false alarm.").is_visible()
    assert not wrong and hosts == {"127.0.0.1"}
