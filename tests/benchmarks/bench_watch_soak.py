"""Does a watch keep its promises for an hour? Two RTSP cameras, a script of events, and a fault every minute.

python tests/benchmarks/bench_watch_soak.py [--minutes 60] [--work FOLDER] [--seed 904]

`avad-hf watch` runs as a process of its own, with evidence, page and a signed webhook. Each camera is an RTSP server
(GStreamer) that can be killed or stopped. It sends a drawn video of 150 s with two events at known seconds, from the
beginning for each connection. The faults: the server is killed and comes back after 5 s; it stands still for 12 s; it
comes back with another picture size, without sound, and with sound again; the webhook's receiver is gone for a minute
or two. No fault lies within an event.

Expected: each event that was shown is opened once and alerted once, and nothing else is; memory grows by less than
5 MiB an hour after the first ten minutes; file descriptors and threads stay as they were. Status 1 if not.
"""

import argparse
import base64
import hashlib
import hmac
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import av
import numpy as np
import psutil
from PIL import Image
from transformers import pipeline

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.live_servers import MISSING, RtspServer, has_rtsp_server

from avad_hf.detection.pipeline import DEMO_MODEL
from avad_hf.synthetic import sounds, world

FPS, FILE_S, EVENTS_S = 25, 150.0, (20.0, 80.0)
# Pixels of the picture, and of the other size that a camera comes back with.
SIZE, OTHER_SIZE = (160, 90), (192, 108)
THRESHOLD, CLEARLY_BELOW, CLEARLY_ABOVE = 0.5, 0.2, 0.8
# Frames that are cut off before clips are counted: a camera's clips need not begin where the file does.
OFFSETS = (8, 16, 24)
MERGE_S, COOL_DOWN_S = 3, 10
# What befalls a camera, in turn.
FAULTS = ("killed", "stopped", "other size", "without sound", "with sound again")
GONE_S, STOPPED_S = 5.0, 12.0
# Every so many minutes the webhook's receiver is gone, for one minute or two in turn; not in the last ones.
HOOK_EVERY, HOOK_LAST = 4, 4
# No fault comes so many seconds before an event, or after it, or after a connection began.
CLEAR_BEFORE_S, CLEAR_AFTER_S, CLEAR_START_S = 4.0, 8.0, 5.0
SAMPLE_S, SETTLED_S, COMPARED_S = 10.0, 600.0, 1200.0
MOST_SLOPE = 5.0  # MiB an hour
# More threads or descriptors than this above what they were is a leak: a connection that ends holds some for a moment.
MOST_MORE = 2
# Why a segment ended while its connection went on, as the watch says it.
SAME_CONNECTION = (
    "the sound stopped",
    "the sound came back",
    "its clock jumped",
    "computing fell behind",
    "the picture",
)
# Systems give outgoing connections ports from 32768 on.
STEADY_PORTS = range(20000, 32000)
SECRET = "whsec_" + base64.b64encode(b"a secret of the soak's receiver!").decode()


class Film:
    """One normal clip again and again, but for one with an anomaly at each of `EVENTS_S`.

    Args:
        normal: Plan of the normal clip.
        odd: Plan of the other one.
    """

    def __init__(self, normal: world.ClipPlan, odd: world.ClipPlan):
        self.odd, parts, total = odd, [_drawn(normal), _drawn(odd)], round(FILE_S * FPS)
        self.event_s = len(parts[1][0]) / FPS
        waiting, self.pictures, samples = [round(at * FPS) for at in EVENTS_S], [], []
        while len(self.pictures) < total:
            is_odd = bool(waiting) and len(self.pictures) == waiting[0]
            if is_odd:
                waiting.pop(0)
            pictures, sound = parts[is_odd]
            count = min(len(pictures), (waiting or [total])[0] - len(self.pictures))
            self.pictures += pictures[:count]
            samples.append(sound[:, : round(count / FPS * sounds.RATE_HZ)])
        self.sound = np.concatenate(samples, 1)

    def write(self, path: Path, size: tuple[int, int] = SIZE, skip: int = 0) -> Path:
        """Write it as H.264, with a key frame each second, and AAC."""
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=Fraction(FPS))
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            video.codec_context.options = {"g": str(FPS), "bf": "0", "preset": "veryfast", "threads": "1"}
            audio = container.add_stream("aac", rate=sounds.RATE_HZ)
            audio.layout = "stereo"
            heard = self.sound[:, round(skip / FPS * sounds.RATE_HZ) :].astype(np.float32)
            done = 0
            for index, picture in enumerate(self.pictures[skip:]):
                if size != SIZE:
                    picture = np.asarray(Image.fromarray(picture).resize(size))
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, FPS)
                container.mux(video.encode(frame))
                while done < min(heard.shape[1], (index + 1) / FPS * sounds.RATE_HZ):
                    block = av.AudioFrame.from_ndarray(
                        np.ascontiguousarray(heard[:, done : done + 1024]), format="fltp", layout="stereo"
                    )
                    block.sample_rate, block.pts, block.time_base = sounds.RATE_HZ, done, Fraction(1, sounds.RATE_HZ)
                    container.mux(audio.encode(block))
                    done += 1024
            container.mux(video.encode(None))
            container.mux(audio.encode(None))
        return path

    def separates(self, detect, path: Path, skip: int = 0) -> tuple[float, float]:
        """The highest score of a normal clip, and the highest of the worse event."""
        normal, odd = [0.0], [[0.0] for _ in EVENTS_S]
        for clip in detect(str(path))["clips"]:
            for scores, at in zip(odd, EVENTS_S, strict=True):
                begin = at - skip / FPS
                if clip["end"] > begin and clip["start"] < begin + self.event_s:
                    scores.append(clip["score"])
                    break
            else:
                normal.append(clip["score"])
        return max(normal), min(max(scores) for scores in odd)


def films(seed: int, detect, work: Path) -> Iterator[Film]:
    """Films that may do, the most promising first: of normal clips that are low, and an anomaly that is seen too."""
    plans = [plan for plan in world.plan_world("crossing", 200, seed) if plan.fps == FPS]
    path = work / "clip.mp4"

    def scores(plan):
        world.render_clip(plan, path)
        heard = detect(str(path))["clips"]
        seen = detect(str(_silent(path, work / "silent_clip.mp4")))["clips"]
        return [[clip["score"] for clip in clips] for clips in (heard, seen)]

    odd = [plan for plan in plans if plan.label in ("bus", "heavy_goods_vehicle")][:8]
    best = max(odd, key=lambda plan: np.minimum(*scores(plan)).mean())
    normal = [plan for plan in plans if plan.label == "normal"][:10]
    for plan in sorted(normal, key=lambda plan: np.max(scores(plan))):
        yield Film(plan, best)


def _silent(source: Path, path: Path) -> Path:
    """A copy without sound; the pictures are the same to the bit."""
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(container.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return path


def _drawn(plan) -> tuple[list[np.ndarray], np.ndarray]:
    background, event = world.clip_sound(plan)
    return [picture.copy() for _, picture in world.clip_pictures(plan)], np.tanh(background + event)


class Receiver:
    """Takes webhooks, verifies who sent them, and can be gone."""

    def __init__(self):
        self.port, self.events, self.forged, self._server = steady_port(), [], 0, None
        self._lock = threading.Lock()

    @property
    def is_there(self) -> bool:
        return self._server is not None

    def come(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                number, moment = self.headers["webhook-id"], self.headers["webhook-timestamp"]
                key = base64.b64decode(SECRET.removeprefix("whsec_"))
                mac = hmac.digest(key, f"{number}.{moment}.".encode() + body, hashlib.sha256)
                is_right = self.headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
                with receiver._lock:
                    receiver.forged += not is_right
                    receiver.events.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def go(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server = None


class Session:
    """One connection to a camera: when its file's second 0 was, and where its last clip ended, since 1970."""

    def __init__(self, start: float):
        self.start = self.end = start
        self.is_over = False


class Seen:
    """What the watch said on standard output."""

    def __init__(self, names: list[str], lines, copy):
        self.sessions: dict[str, list[Session]] = {name: [] for name in names}
        self.events, self.gaps, self.lags, self.broken = [], [], [], []
        self._lines, self._copy = lines, copy
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for line in self._lines:
            self._copy.write(line)
            try:
                record = json.loads(line)
            except ValueError:
                self.broken.append(line)
                continue
            sessions = self.sessions.get(record["camera"], [])
            if record["type"] == "event":
                self.events.append(record)
            elif record["type"] == "gap":
                self.gaps.append(record)
                if sessions and not record["reason"].startswith(SAME_CONNECTION):
                    sessions[-1].is_over = True
            else:
                if not sessions or sessions[-1].is_over:
                    sessions.append(Session(record["start"]))
                sessions[-1].end = max(sessions[-1].end, record["end"])
                self.lags.append(record["lag"])

    def position(self, name: str) -> float | None:
        """Second of the file that a camera shows now; ``None`` while it shows nothing."""
        last = self.sessions[name][-1:]
        return None if not last or last[0].is_over or time.time() - last[0].end > 6 else time.time() - last[0].start


def steady_port() -> int:
    """A free port that no outgoing connection is given while its server is gone."""
    for port in random.sample(STEADY_PORTS, 100):
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise OSError(f"No port of {STEADY_PORTS} is free.")


class Eye:
    """A camera of the soak: its server, its files, and what befell it."""

    def __init__(self, name: str, files: dict[str, Path]):
        self.name, self.files, self.faults = name, files, 0
        self.server = RtspServer({"live": str(files["normal"])}, steady_port())
        self.next_file = "normal"
        self.back_at: float | None = None
        self.is_stopped = False

    def fault(self) -> str:
        """The next one."""
        kind = FAULTS[self.faults % len(FAULTS)]
        self.faults += 1
        if kind == "stopped":
            self.server.process.send_signal(signal.SIGSTOP)
            self.is_stopped, self.back_at = True, time.monotonic() + STOPPED_S
        else:
            self.next_file = {
                "other size": "other size",
                "without sound": "without sound",
                "with sound again": "normal",
            }.get(kind, self.next_file)
            self.server.kill()
            self.back_at = time.monotonic() + GONE_S
        return kind

    def tick(self) -> None:
        """Come back when it is time."""
        if self.back_at is None or time.monotonic() < self.back_at:
            return
        if self.is_stopped:
            self.server.process.send_signal(signal.SIGCONT)
        else:
            self.server._files = {"live": str(self.files[self.next_file])}
            self.server.start()
            with socket.create_connection(("127.0.0.1", self.server.port), 5):
                pass  # it says that it is ready even where another process has its port
        self.is_stopped, self.back_at = False, None


def is_clear(position: float | None, event_s: float) -> bool:
    """Whether a fault may come now: within no event, and not near one."""
    if position is None or not CLEAR_START_S < position < FILE_S - 5:
        return False
    return not any(at - CLEAR_BEFORE_S < position < at + event_s + CLEAR_AFTER_S for at in EVENTS_S)


def settings(work: Path, eyes: list[Eye], port: int) -> Path:
    """The file of cameras."""
    text = f'model = "{DEMO_MODEL}"\n'
    for eye in eyes:
        text += f'[[camera]]\nname = "{eye.name}"\nsource = "{eye.server.url("live")}"\nthreshold = {THRESHOLD}\n'
    text += f"[events]\nmerge = {MERGE_S}\ncool_down = {COOL_DOWN_S}\n[page]\nport = 0\n"
    text += f'[evidence]\nfolder = "{work / "evidence"}"\n'
    text += f'[[sink]]\ntype = "webhook"\nurl = "http://127.0.0.1:{port}/alerts"\nsecret = "{SECRET}"\n'
    path = work / "cameras.toml"
    path.write_text(text)
    return path


def expected(seen: Seen, event_s: float) -> tuple[list[tuple[str, float]], int]:
    """Camera and start of each event that was shown whole, and how many were cut."""
    whole, cut = [], 0
    for name, sessions in seen.sessions.items():
        for session in sessions:
            for at in EVENTS_S:
                start = session.start + at
                if session.end >= start + event_s:
                    whole.append((name, start))
                else:
                    cut += session.end > start
    return whole, cut


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--work", type=Path, default=None, help="Folder for all files; a temporary one by default.")
    parser.add_argument("--seed", type=int, default=904, help="Of the drawn world.")
    given = parser.parse_args()
    if not has_rtsp_server():
        print(f"This benchmark {MISSING}")
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        return soak(work.resolve(), given.minutes, given.seed)


def chosen(work: Path, seed: int) -> tuple[Film | None, dict[str, Path]]:
    """The first film that the demonstration model separates clearly, and its files."""
    detect = pipeline("audio-visual-anomaly", model=str(DEMO_MODEL), threshold=THRESHOLD)
    for film in films(seed, detect, work):
        say(f"drawn: events of {film.event_s:g} s ({film.odd.label}) at {EVENTS_S} of {FILE_S:g} s")
        files = {
            "normal": film.write(work / "normal.mp4"),
            "other size": film.write(work / "size.mp4", size=OTHER_SIZE),
        }
        files["without sound"] = _silent(files["normal"], work / "silent.mp4")
        skipped = {f"from frame {skip}": (film.write(work / f"skip{skip}.mp4", skip=skip), skip) for skip in OFFSETS}
        for name, (path, skip) in ({name: (path, 0) for name, path in files.items()} | skipped).items():
            normal, odd = film.separates(detect, path, skip)
            say(f"offline, {name}: normal clips up to {normal:.4f}, events from {odd:.4f} on")
            if normal > CLEARLY_BELOW or odd < CLEARLY_ABOVE:
                break
        else:
            return film, files
    return None, {}


def soak(work: Path, minutes: float, seed: int) -> int:
    """One soak; returns the exit status."""
    film, files = chosen(work, seed)
    if film is None:
        print("The demonstration model does not separate these videos clearly. Take another --seed.")
        return 2
    receiver = Receiver()
    receiver.come()
    eyes = [Eye(name, files) for name in ("gate", "yard")]
    errors, copy = (work / "watch.log").open("w"), (work / "records.jsonl").open("w", buffering=1)
    command = [
        str(Path(sys.executable).with_name("avad-hf")),
        "watch",
        "--config",
        str(settings(work, eyes, receiver.port)),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        seen = Seen([eye.name for eye in eyes], process.stdout, copy)
        samples, metrics = watch_over(process, seen, eyes, receiver, film.event_s, minutes, work)
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        status = process.poll()
    finally:
        process.kill()
        seen.thread.join(10)
        for eye in eyes:
            eye.server.kill()
        errors.close()
        copy.close()
    return judge(seen, receiver, samples, film.event_s, status, metrics, work)


def watch_over(process, seen, eyes, receiver, event_s, minutes, work) -> tuple[np.ndarray, str]:
    """Let faults come for so many minutes; returns samples (s, MiB, descriptors, threads, CPU s), and metrics."""
    while not all(seen.sessions.values()):
        if process.poll() is not None:
            raise SystemExit(f"The watch ended at once: {(work / 'watch.log').read_text()}")
        time.sleep(0.2)
    watched, begun, samples, metrics = psutil.Process(process.pid), time.monotonic(), [], ""
    next_sample, minute, hook_until, pending = begun, 0, None, []
    is_ending = False
    while process.poll() is None:
        now = time.monotonic()
        for eye in eyes:
            eye.tick()
        if now >= next_sample:
            next_sample += SAMPLE_S
            cpu = watched.cpu_times()
            samples.append(
                (
                    now - begun,
                    watched.memory_info().rss / 2**20,
                    watched.num_fds(),
                    watched.num_threads(),
                    cpu.user + cpu.system,
                )
            )
            if len(samples) % 6 == 1:
                metrics = page(work)
                say(
                    f"{samples[-1][0] / 60:5.1f} min: {samples[-1][1]:.1f} MiB, {samples[-1][2]} descriptors, "
                    f"{samples[-1][3]} threads, {samples[-1][4]:.0f} s CPU, "
                    f"{sum(event['state'] == 'opened' for event in seen.events)} opened, "
                    f"{sum(event['state'] == 'opened' for event in receiver.events)} alerted"
                )
        if now - begun >= 60 * (minute + 1):
            minute += 1
            is_ending = minute >= minutes
            if not is_ending:
                pending.append(eyes[minute % len(eyes)])
                if minute % HOOK_EVERY == 0 and minute < minutes - HOOK_LAST and receiver.is_there:
                    receiver.go()
                    hook_until = now + 60 * (1 + minute // HOOK_EVERY % 2)
                    say(f"the webhook's receiver is gone for {hook_until - now:.0f} s")
        for eye in [eye for eye in pending if eye.back_at is None and is_clear(seen.position(eye.name), event_s)]:
            at = seen.position(eye.name)
            say(f"{eye.name}: {eye.fault()} at second {at:.1f} of its file")
            pending.remove(eye)
        if hook_until is not None and now >= hook_until:
            receiver.come()
            hook_until = None
        if is_ending and not pending and all(is_clear(seen.position(eye.name), event_s) for eye in eyes):
            break
        time.sleep(0.1)
    return np.array(samples), metrics


def page(work: Path) -> str:
    """The page's metrics, as a Prometheus would ask for them."""
    for line in (work / "watch.log").read_text().splitlines():
        if line.startswith("Page: "):
            try:
                with urlopen(line.removeprefix("Page: ").strip().rstrip("/") + "/metrics", timeout=10) as answer:
                    return answer.read().decode()
            except OSError as error:
                return f"the page gives no metrics: {error}"
    return ""


def judge(seen, receiver, samples, event_s, status, metrics, work) -> int:
    """Say what was found; returns the exit status."""
    failures = []

    def check(is_fine: bool, words: str) -> None:
        say(f"{'ok    ' if is_fine else 'FAILED'} {words}")
        if not is_fine:
            failures.append(words)

    whole, cut = expected(seen, event_s)
    opened = [event for event in seen.events if event["state"] == "opened"]
    alerts = Counter(event["id"] for event in receiver.events if event["state"] == "opened")
    clip_s = 32 / FPS
    matches = {
        place: [
            e for e in opened if e["camera"] == place[0] and -2 * clip_s < e["start"] - place[1] < event_s + clip_s
        ]
        for place in whole
    }
    missed = [place for place, events in matches.items() if not events]
    doubled = [place for place, events in matches.items() if len(events) > 1]
    right = {event["id"] for events in matches.values() for event in events}
    others = [event for event in opened if event["id"] not in right]
    sessions = {name: len(found) for name, found in seen.sessions.items()}
    say(f"connections: {sessions}; segments ended by: {dict(Counter(gap['reason'] for gap in seen.gaps))}")
    check(not missed, f"{len(whole) - len(missed)} of {len(whole)} events opened ({cut} cut) {missed or ''}")
    check(not doubled, f"{len(doubled)} events opened twice {doubled or ''}")
    check(len(others) <= cut, f"{len(others)} events besides {[(e['camera'], e['start']) for e in others] or ''}")
    check(len({e["id"] for e in opened}) == len(opened), "each opened under an id of its own")
    unalerted = [e["id"] for e in opened if not alerts[e["id"]]]
    check(not unalerted, f"{len(opened) - len(unalerted)} of {len(opened)} alerted {unalerted or ''}")
    again = [number for number, count in alerts.items() if count > 1]
    check(not again and set(alerts) <= {e["id"] for e in opened}, f"{len(again)} alerted more than once {again or ''}")
    check(not receiver.forged, f"{len(receiver.events)} posts, {receiver.forged} with a wrong signature")
    closed = {event["id"] for event in seen.events if event["state"] == "closed"}
    check(closed >= {e["id"] for e in opened}, f"{len(closed)} events closed")
    with_clip = {event["id"] for event in seen.events if "clip" in event.get("evidence", {})}
    check(with_clip >= {e["id"] for e in opened}, f"{len(with_clip)} events with a clip of evidence")
    check(not seen.broken, f"{len(seen.broken)} lines that are no JSON")
    check(status == 128 + signal.SIGTERM, f"exit status {status} within 60 s of SIGTERM")
    lags, latencies = np.array(seen.lags), np.array([event["latency"] for event in opened] or [0.0])
    say(
        f"lag of {len(lags)} clips: median {np.median(lags):.2f} s, 99 % {np.quantile(lags, 0.99):.2f} s, most "
        f"{lags.max():.2f} s; latency of events: median {np.median(latencies):.2f} s, most {latencies.max():.2f} s"
    )
    np.savetxt(work / "samples.csv", samples, fmt="%.2f", delimiter=",", header="s,MiB,descriptors,threads,CPU s")
    steady(samples, check)
    for line in metrics.splitlines():
        if not line.startswith("#") and any(word in line for word in ("left_out", "reconnects", "gaps", "sink")):
            say(line)
    say(f"files in {work}")
    say(f"{len(failures)} failures" if failures else "all as expected")
    return 1 if failures else 0


def steady(samples: np.ndarray, check) -> None:
    """Judge memory, descriptors, threads."""
    seconds, memory, cpu = samples[:, 0], samples[:, 1], samples[:, 4]
    say(
        f"{seconds[-1] / 60:.1f} minutes; {(cpu[-1] - cpu[0]) / max(seconds[-1] - seconds[0], 1):.2f} cores; memory "
        f"{memory[0]:.1f} MiB at first, {memory[-1]:.1f} at last, {memory.max():.1f} at most"
    )
    late = seconds >= SETTLED_S
    if late.sum() < 30:
        say("too short to judge memory, descriptors and threads: that needs more than fifteen minutes")
        return
    slope, _ = np.polyfit(seconds[late] / 3600, memory[late], 1)
    check(slope < MOST_SLOPE, f"memory grows by {slope:.2f} MiB an hour after ten minutes")
    before = late & (seconds < COMPARED_S)
    after = seconds >= max(seconds[-1] / 2, SETTLED_S)
    for name, column in (("descriptors", 2), ("threads", 3)):
        then, now = samples[before, column], samples[after, column]
        is_fine = now.max() <= then.max() + MOST_MORE and abs(np.median(now) - np.median(then)) <= 1
        words = [f"{part.min():.0f} to {part.max():.0f} (median {np.median(part):.0f})" for part in (then, now)]
        check(is_fine, f"{name}: {words[0]} in minutes 10 to 20, {words[1]} in the last half")


def say(words: str) -> None:
    """One line, at once."""
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
