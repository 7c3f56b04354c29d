"""The page of `avad-hf app`, in gradio, as a person uses it in a browser; and the Space, which is the same program."""

import os
import re
import shutil
import signal
import socket
import sys
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from packaging.requirements import Requirement
from typer.testing import CliRunner

from avad_hf import app as page_module
from avad_hf.cli import app as command
from avad_hf.detection.pipeline import DEMO_MODEL, NOT_JUDGED
from avad_hf.hub.cards import space_app, template_folder
from avad_hf.hub.space import check_requirement, push_space
from avad_hf.media.decode import MediaError
from avad_hf.report.result import MOST_EVENTS, result_part

from . import warm
from .short_clips import beginning

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium")
# Runs the command with examples of three seconds, and prints whatever it connects to, or asks for the address of,
# outside of this computer.
RUN = f"""
import sys, tempfile
sys.path.insert(1, {str(ROOT)!r})
from tests import warm
warm.short_videos(3.0)
tempfile.tempdir = None  # which is this process's own
def watch(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):  # and not a socket of this system's own
        host = arguments[1][0]
    else:
        return
    if host not in ("127.0.0.1", "localhost"):
        print("OUTSIDE", host, flush=True)
sys.addaudithook(watch)
from avad_hf.cli import app
app(["app"])
"""


@contextmanager
def served(folder):
    """The address of the page of `avad-hf app`, in a process that is asked to end."""
    process = warm.start(code=RUN, env={"TMPDIR": str(folder)})
    try:
        deadline = time.monotonic() + 120
        while "\n" not in process.stdout and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        (address,) = re.findall(r"http://\S+/", process.stdout)
        yield process, address
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert process.stdout.count("\n") == 1  # it connected to nothing outside
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextmanager
def browser(address):
    """A page in Chromium, with a camera and a microphone that Chromium makes up, and the addresses that it asks."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--use-fake-device-for-media-stream=fps=10", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)  # ms; beside other tests a video takes long
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.get_by_role("button", name="Find anomalies").wait_for()
        yield page, asked


def upload(page, path):
    if (clear := page.get_by_label("Clear")).count():
        clear.click()
    page.locator("input[type=file]").first.set_input_files(str(path))
    page.locator(f"video[src*='{Path(path).name}']").first.wait_for(state="attached")


def find(page):
    """Press the button, and wait for what it finds."""
    page.get_by_role("button", name="Find anomalies").click()
    page.locator(".found img").wait_for()
    return page.locator(".found").inner_text()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium")
def test_a_person_uses_the_page(tmp_path, bunny):
    folder = tmp_path / "uploads"
    folder.mkdir()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 50)
    with served(folder) as (process, address), browser(address) as (page, asked):
        said = page.locator("body").inner_text()
        assert "A score is no ground for a decision about a person." in said
        assert "Detector: the demonstration model" in said and "Demonstration model, trained on synthetic" in said
        listening = [one.laddr.ip for one in psutil.Process(process.pid).net_connections() if one.status == "LISTEN"]
        assert listening and set(listening) == {"127.0.0.1"}

        # A real video, whose timeline is seen whole and in the size in which it was drawn.
        upload(page, beginning(bunny, tmp_path / "bigbuckbunny.mp4", 34))
        said = find(page)
        assert "not judged: highest score" in said and "bigbuckbunny.mp4: 2 clips, 1.36 s, with sound" in said
        assert NOT_JUDGED in said and "damaged" not in said
        box, frame = page.locator(".found img").bounding_box(), page.locator(".found .scroll").first.bounding_box()
        assert box["width"] > 1100 and box["x"] >= 0 and box["x"] + box["width"] <= 1280
        assert box["height"] <= frame["height"] and box["width"] <= frame["width"]
        assert page.locator(".found img").evaluate("image => image.naturalWidth") >= box["width"]
        with page.expect_download() as download:
            page.get_by_text("Download the result").click()
        assert download.value.suggested_filename == "bigbuckbunny.json"

        # Phones: nothing is wider than the page, and a tap enlarges the timeline.
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator(".found img").bounding_box()["width"] < 390
        page.locator(".found img").click()
        assert page.locator(".found img").bounding_box()["width"] > 900
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

        # Our words, which stay, and no result of another video beside them.
        upload(page, broken)
        page.get_by_role("button", name="Find anomalies").click()
        alert = page.locator(".notes[role=alert]")
        alert.wait_for()
        assert re.search(r"Error\s+broken.mp4 cannot be opened as video", alert.inner_text())
        assert str(folder) not in alert.inner_text() and page.locator(".found").count() == 0

        # A drawn example, and the overlay.
        page.get_by_role("button", name="underpass: ").click()
        page.locator("video[src*='synthetic-underpass']").wait_for(state="attached")
        assert "anomaly: highest score" in find(page)
        page.get_by_role("button", name="Draw the result into the video").click()
        overlay = page.locator("video[src*='-overlay.mp4']")
        overlay.wait_for(state="attached")
        page.wait_for_function("video => video.videoWidth >= 600", arg=overlay.element_handle())

        # Camera and microphone.
        page.reload()
        page.get_by_label("Capture from camera").click()
        page.get_by_text("Click to Access Webcam").click()
        record = page.get_by_label("start recording")
        record.click()
        page.get_by_text("Stop", exact=True).wait_for()
        page.wait_for_timeout(1500)
        record.click()
        page.locator("video[src*='.webm'], video[src^='blob:']").first.wait_for(state="attached")
        assert "with sound" in find(page)

        assert asked and all(url.startswith((address, "data:", "blob:")) for url in asked)
        assert list(folder.rglob("bigbuckbunny.mp4"))
    assert list(folder.iterdir()) == []  # the end deletes what was uploaded


RESULT = {
    "score": 0.9,
    "label": "<i>fight</i>",
    "events": [{"start": 1.0, "end": 2.0, "peak": 1.5, "score": 0.9, "label": "<i>fight</i>"}],
    "clips": [{"start": 0.0, "end": 1.0, "score": 0.1}, {"start": 1.0, "end": 2.0, "score": 0.9}],
    "threshold": 0.5,
    "duration": 2.0,
    "has_audio": False,
    "warnings": ["<b>untrained</b>", "said before"],
}


def test_a_result_is_shown_and_not_obeyed(bikes):
    shown = result_part(RESULT, bikes, "<script>x</script>.mp4", said=["said before"])
    assert "<script>" not in shown and "<i>" not in shown and "<b>" not in shown
    assert "&lt;i&gt;fight&lt;/i&gt;</strong>: highest score 0.900, threshold 0.5<" in shown
    assert "2 clips, 2.00 s, no sound" in shown and "&lt;b&gt;untrained" in shown and "said before" not in shown
    assert "<caption>Events</caption>" in shown and "1.00 s to 2.00 s" in shown and "why" not in shown
    assert 'alt="Score over time: at most 0.900, 1 event."' in shown


def test_words_and_reasons_are_shown_where_there_are_some(bikes):
    names = {"seen": [{"label": "sailing", "score": 0.7}], "heard": [{"label": "Siren", "score": 0.4}]}
    event = RESULT["events"][0] | names | {"why": {"sight": 0.2, "sound": 0.8}}
    clips = [clip | names for clip in RESULT["clips"]]
    many = result_part(RESULT | names | {"events": [event] * (MOST_EVENTS + 1), "clips": clips}, bikes, "a.mp4")
    assert "<strong>Seen</strong>: sailing 0.70" in many and "<strong>Heard</strong>: Siren 0.40" in many
    assert "<td>sailing</td><td>Siren</td><td>sound 80%" in many
    assert many.count("1.00 s to 2.00 s") == MOST_EVENTS and f"the first {MOST_EVENTS}; 1 more" in many
    none = result_part(RESULT | {"label": "normal", "events": []}, bikes, "a.mp4")
    assert "No event: no clip reaches the threshold." in none and "<table" not in none
    assert "No event" not in result_part(RESULT | {"label": None, "events": []}, bikes, "a.mp4")


def test_examples_say_that_they_are_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(page_module, "render_clip", lambda plan, path: drawn.append(plan))
    examples = page_module.draw_examples(tmp_path)
    assert [path.stem for path in examples.values()] == [f"synthetic-{plan.stem}" for plan in drawn]
    assert [name.partition(":")[0] for name in examples] == ["crossing", "crossing", "underpass"]
    assert [plan.label == "normal" for plan in drawn] == [False, True, False]


class Detector:
    """In place of the pipeline: keeps what it is asked for, and answers what the test says."""

    def __init__(self, answer, classes=None):
        self.answer, self.asked = answer, []
        self.model = SimpleNamespace(config=SimpleNamespace(threshold=0.123456789, notice=None))
        self.processor = SimpleNamespace(notices=[], classes=classes or {})

    def __call__(self, video, on_progress, **options):
        on_progress(1.0, None)
        self.asked.append(options)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def page_of(detector):
    """What the buttons call, by name, and the fields by their labels."""
    page = page_module.build_page(detector, "<i>street</i>", {})
    functions = {one.name: one.fn for one in page.fns.values()}
    fields = {getattr(block, "label", None): block for block in page.blocks.values()}
    return page, functions, fields


def test_the_detectors_own_threshold_holds_until_it_is_moved(tmp_path, bikes):
    video = tmp_path / "bikes.mp4"
    shutil.copy(bikes, video)
    detector = Detector(RESULT)
    page, functions, fields = page_of(detector)
    functions["look"](str(video), fields["Threshold"].value, False)
    functions["look"](str(video), 0.4, True)
    assert detector.asked == [{"threshold": None, "describe": False}, {"threshold": 0.4, "describe": True}]
    assert page.delete_cache == (60, 600) and not page.analytics_enabled
    assert not fields["Say what is seen and heard"].visible


def test_words_are_offered_where_encoders_have_classes():
    box = page_of(Detector(RESULT, classes={"seen": ["sailing"]}))[2]["Say what is seen and heard"]
    assert box.visible and box.value is True


def test_errors_are_in_our_words_and_name_no_folder(tmp_path):
    import gradio

    video = tmp_path / "a.mp4"
    video.write_bytes(b"none")
    _, functions, _ = page_of(Detector(MediaError(f"{video} <b> cannot be opened as video.")))
    box, kept, *_ = functions["look"](str(video), 0.5, False)
    assert "<p>a.mp4 &lt;b&gt; cannot be opened as video.</p>" in box and kept is None
    with pytest.raises(gradio.Error, match=r"There is no video yet. Upload or record one, or choose an example"):
        functions["look"](None, 0.5, False)
    with pytest.raises(gradio.Error, match=r"a.mp4 cannot be opened as video"):
        functions["draw"]((str(video), RESULT))
    for gone in (None, (str(tmp_path / "gone.mp4"), RESULT)):
        with pytest.raises(gradio.Error, match=r"The video was deleted meanwhile. Upload it again"):
            functions["draw"](gone)


def test_a_video_in_use_does_not_grow_old(tmp_path):
    video = tmp_path / "a.mp4"
    video.write_bytes(b"a")
    os.utime(video, (1, 1))
    before = video.stat()
    while video.stat().st_ctime_ns == before.st_ctime_ns:  # clocks of file systems are coarse
        page_module.keep(str(video))
    assert video.stat().st_mtime_ns == before.st_mtime_ns  # else it would count as written to while it is read


def test_the_command_says_what_is_wrong_before_it_loads(monkeypatch):
    def said(*arguments):
        done = CliRunner().invoke(command, ["app", *arguments])
        assert done.exit_code == 2
        return done.stderr

    assert "MODEL /none/street: no such folder. Give the folder of a checkpoint, or its Hub id." in said(
        "/none/street"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = f"cannot listen on 127.0.0.1, port {port}: Address already in use. Give another port"
        assert words in said("--port", str(port))
    assert "cannot listen on 192.0.2.1: Cannot assign requested address" in said("--host", "192.0.2.1")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "The page needs gradio. Install it with `pip install 'avad-hf[app]'`" in said()


def test_others_may_see_the_page_only_where_that_is_asked_for(monkeypatch, tiny):
    shown = []
    monkeypatch.setattr(page_module, "serve", lambda detect, name, host, port, ready: shown.append((name, host)))
    quiet = CliRunner().invoke(command, ["app", tiny])
    loud = CliRunner().invoke(command, ["app", tiny, "--host", "0.0.0.0"])
    assert shown == [("tiny", "127.0.0.1"), ("tiny", "0.0.0.0")]
    assert "Everybody" not in quiet.stderr and "Everybody who can reach 0.0.0.0 can use this page" in loud.stderr


def test_a_space_runs_the_same_page(monkeypatch):
    shown = []
    monkeypatch.setattr(page_module, "serve", lambda detect, name: shown.append((type(detect).__name__, name)))
    exec(compile(space_app(str(DEMO_MODEL)), "app.py", "exec"), {"__name__": "__main__"})
    assert shown == [("AudioVisualAnomalyPipeline", str(DEMO_MODEL))]


def test_a_space_gets_the_gradio_and_the_python_that_this_library_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (gradio,) = map(Requirement, project["optional-dependencies"]["app"])
    card = yaml.safe_load((template_folder() / "space.md").read_text(encoding="utf-8").split("---\n")[1])
    assert gradio.name == "gradio" and gradio.specifier.contains(card["sdk_version"])
    assert Requirement(f"python{project['requires-python']}").specifier.contains(card["python_version"])


@pytest.mark.parametrize(
    ("requirement", "private", "words"),
    [
        (
            None,
            None,
            r"A Space needs the address of this library, and none is given. The package index does not have it",
        ),
        ("avad-hf", None, r"'avad-hf' is no address of this library, and no wheel of it here.*pip wheel --no-deps \."),
        ("git+ssh://host/avad-hf", None, "no address of this library"),
        ("none/avad_hf-1-py3-none-any.whl", None, "no wheel of it here"),
        ("https://alice:secret@host/avad_hf.whl", None, "holds a login, which everybody could read"),
        ("git+https://host/avad-hf\n--index-url https://evil", None, "must be in one piece"),
        ("WHEEL", True, "A private Space cannot install a wheel that lies in it: pip has no token there"),
    ],
)
def test_a_space_needs_an_address_that_its_pip_can_use(tmp_path, requirement, private, words):
    wheel = tmp_path / "avad_hf-1-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    with pytest.raises(ValueError, match=words) as refused:
        push_space(
            "alice/m", "alice/show", requirement=wheel if requirement == "WHEEL" else requirement, private=private
        )
    assert "secret" not in str(refused.value)
    assert check_requirement(wheel, None) == wheel
    assert check_requirement("git+https://github.com/alice/avad-hf@main", True) is None


def test_the_command_refuses_a_space_without_an_address_before_it_pushes(tiny):
    def said(*arguments):
        done = CliRunner().invoke(command, ["push", tiny, "alice/street", *arguments])
        assert done.exit_code == 2
        return done.stderr

    assert "A Space needs the address of this library, and none is given." in said("--space", "alice/show")
    assert "--requirement belongs to --space." in said("--requirement", "git+https://host/avad-hf")
