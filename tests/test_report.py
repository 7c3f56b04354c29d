"""Plots and overlays: what is drawn where, and that sound and times are kept."""

import warnings
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image

from avad_hf.detection.events import ScoredClip, detect_events
from avad_hf.media.decode import MediaError
from avad_hf.media.sources import open_media
from avad_hf.report.heat import heat_picture, strength
from avad_hf.report.overlay import render_overlay
from avad_hf.report.timeline import LETTER_WIDTH, REASON_ROWS, plot_timeline, reason_rows

from .media_files import frame_times, sound, tone, write_media
from .short_clips import beginning


def result(scores, duration, has_audio=True, warnings=()):
    length = duration / len(scores)
    clips = [ScoredClip(i * length, (i + 1) * length, score) for i, score in enumerate(scores)]
    return detect_events(clips, 0.5, duration, 25.0, has_audio, warnings=warnings).to_dict()


@pytest.fixture
def video(tmp_path):
    times = frame_times(25, 2.0)
    return write_media(tmp_path / "a.mov", times, sound(0, 2.0, 44100, 2), 44100, size=(321, 180))


def reddish(pixels):
    return (pixels[..., 0].astype(int) > pixels[..., 1].astype(int) + 15).mean(axis=0)


def test_plot_marks_the_event_where_it_is(tmp_path, video):
    plot_timeline(result([0.1, 0.9], 2.0), video, tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    columns = reddish(pixels[60:340])
    inner = columns[int(pixels.shape[1] * 0.08) : int(pixels.shape[1] * 0.99)]
    assert inner[: len(inner) // 2 - 20].max() < 0.05  # no event in the first half
    assert inner[len(inner) // 2 + 20 : -20].min() > 0.8  # all of the second half


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_plot_formats_and_videos_without_sound(tmp_path, bikes, ending):
    path = tmp_path / f"a.{ending}"
    plot_timeline(result([0.2, 0.3], 10.0, has_audio=False, warnings=["Untrained"]), bikes, path)
    assert path.stat().st_size > 5000
    if ending == "svg":
        assert "bikes.mp4" in path.read_text() or path.read_text().count("<path") > 10


def test_overlay_keeps_times_and_sound_and_shows_the_score(tmp_path, video):
    seen = []
    render_overlay(result([0.1, 0.9], 2.0), video, tmp_path / "o.mp4", on_progress=seen.append)
    assert len(seen) == 50 and seen[-1] == pytest.approx(2.0)
    with open_media(tmp_path / "o.mp4") as media:
        assert (media.info.width, media.info.height) == (642, 360)  # small ones are enlarged
        frames = list(media.frames(360))
        track = media.sound(16000)
        heard = track.window(1.9, 0.5).numpy()
    assert [frame.start for frame in frames] == pytest.approx(frame_times(25, 2.0), abs=1e-3)
    expected = tone(1.4 + np.arange(8000) / 16000)
    assert np.corrcoef(heard, expected)[0, 1] > 0.99  # PCM went through AAC, in step
    for frame, is_event in ((frames[5], False), (frames[45], True)):
        border = frame.pixels[:, :120, 0].float().mean(dim=1)
        assert (border[0] > border[1] + 60).item() is is_event
    cursor = [frame.pixels[:, 300:356, :500].float().mean(dim=(0, 1)) for frame in (frames[5], frames[45])]
    assert cursor[0].argmax() < 160 and cursor[1].argmax() > 400


def test_overlay_copies_aac_as_it_is(tmp_path, bunny):
    source = beginning(bunny, tmp_path / "bunny.mp4", 70)
    render_overlay(result([0.1, 0.9, 0.2], 2.8), source, tmp_path / "o.mp4")

    def packets(path):
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.dts is not None]

    assert packets(tmp_path / "o.mp4") == packets(source)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels"),
    [
        ("a.mkv", "pcm_s16le", 8000, 1),
        ("a.avi", "pcm_s16le", 8000, 1),
        ("a.mkv", "pcm_s16le", 22254, 2),
        ("a.mkv", "pcm_s16le", 192000, 1),
        ("a.mkv", "pcm_s16le", 48000, 6),
        ("a.mkv", "pcm_f32le", 48000, 2),
        ("a.avi", "libmp3lame", 44100, 2),
        ("a.ts", "mp2", 48000, 2),
    ],
)
def test_overlay_keeps_sound_of_every_kind(tmp_path, name, codec, rate, channels):
    source = write_media(
        tmp_path / name, frame_times(25, 2.0), sound(0, 2.0, rate, channels), rate, size=(176, 240), audio_codec=codec
    )
    render_overlay(result([0.1, 0.9], 2.0), source, tmp_path / "o.mp4")
    with open_media(source) as before, open_media(tmp_path / "o.mp4") as after:
        assert (after.info.width, after.info.height) == (352, 480)
        assert len(list(after.frames(None))) == 50
        expected, found = (media.sound(16000).window(1.5, 1.0).numpy() for media in (before, after))
    assert np.corrcoef(expected, found)[0, 1] > 0.97


def test_overlay_of_joined_recordings(tmp_path):
    part = write_media(tmp_path / "a.ts", frame_times(25, 2.0), sound(0, 2.0, 48000), audio_codec="aac")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(Path(part).read_bytes() * 2)
    render_overlay(result([0.1], 4.0), joined, tmp_path / "o.mp4")
    with open_media(tmp_path / "o.mp4") as media:
        assert len(list(media.frames(None))) == 100
        track = media.sound(16000)
        assert min(track.window(t, 0.5).square().mean().item() for t in (1.0, 3.5)) > 0.05


def test_overlay_of_a_picture_that_is_too_small(tmp_path):
    source = write_media(tmp_path / "a.mkv", frame_times(25, 0.4), size=(16, 16))
    with pytest.raises(MediaError, match="16 x 16 pixels are too few to draw into"):
        render_overlay(result([0.1], 0.4), source, tmp_path / "o.mp4")


def test_plot_of_a_name_with_signs_of_tex(tmp_path, bikes):
    source = tmp_path / "x_$^$.mp4"
    source.write_bytes(Path(bikes).read_bytes())
    plot_timeline(result([0.1], 10.0, has_audio=False, warnings=["$\\foo$"]), source, tmp_path / "a.png")


def test_what_is_written_in_pictures_is_text(tmp_path):
    evil = '$x_^$ <script>--></svg> & "\x00\x1b[31m\n\u202e\ufffe\udcff'
    source = write_media(tmp_path / "a.mkv", frame_times(25, 0.4), size=(320, 360))
    found = result([0.1, 0.9], 0.4, has_audio=False, warnings=[evil])
    for row in (*found["clips"], *found["events"]):
        row["label"] = evil
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of characters that no font has
        plot_timeline(found, source, tmp_path / "a.svg", title=evil)
        render_overlay(found, source, tmp_path / "a.mp4")
    picture = ElementTree.parse(tmp_path / "a.svg")
    assert not [element for element in picture.iter() if "script" in str(element.tag)]
    assert (tmp_path / "a.mp4").stat().st_size > 1000


def test_overlay_of_a_video_without_sound(tmp_path, bikes):
    source = beginning(bikes, tmp_path / "bikes.mp4", 34)
    render_overlay(result([0.1], 1.36, has_audio=False), source, tmp_path / "o.mp4")
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_a_failed_overlay_leaves_nothing(tmp_path, video):
    class Stop(Exception):
        pass

    def stop(seconds):
        if seconds > 1:
            raise Stop

    with pytest.raises(Stop):
        render_overlay(result([0.1], 2.0), video, tmp_path / "o.mp4", on_progress=stop)
    with pytest.raises(MediaError):
        render_overlay(result([0.1], 2.0), tmp_path / "absent.mp4", tmp_path / "o.mp4")
    with pytest.raises(TypeError, match="from a whole video file, not from a MediaArrays"):
        render_overlay(result([0.1], 2.0), {"frames": np.zeros((2, 8, 8, 3), np.uint8), "fps": 25}, tmp_path / "o.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mov"]


# Why events are events


def why(sight=1.0, label=None, start=0.8, end=1.2, values=((0, 0, 0, 0), (0, 0, 0, 1))):
    likelier = [] if label is None else [{"label": label, "score": 0.7, "usual": 0.05, "times": 14.0}]
    return {
        **{"sight": sight, "sound": 1 - sight, "likelier": {"seen": [], "heard": likelier, "usual_from": "..."}},
        "heat": {"rows": 2, "columns": 4, "values": [list(row) for row in values], "start": start, "end": end},
    }


def explained(reasons, duration, events):
    """A result with events, each with its reason."""
    found = result([0.1], duration)
    found["events"] = [
        {"start": start, "end": end, "peak": start, "score": score, "label": "anomaly", "why": reason}
        for reason, (start, end, score) in zip(reasons, events, strict=True)
    ]
    return found


def test_heat_is_laid_where_it_is(tmp_path, video):
    """Over its clip, fading before and after it, and nowhere else; the reason stands below the picture."""
    plain = explained([{}], 2.0, [(0.0, 2.0, 0.9)])
    hot = explained([why()], 2.0, [(0.0, 2.0, 0.9)])
    frames = {}
    for name, found in (("plain", plain), ("hot", hot)):
        render_overlay(found, video, tmp_path / f"{name}.mp4")
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            frames[name] = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    height, width = frames["plain"][0].shape[:2]
    assert frames["hot"][0].shape[0] > height
    changed = [
        np.abs(hot[:height] - plain).mean(axis=2) for plain, hot in zip(frames["plain"], frames["hot"], strict=True)
    ]
    # The middle of the last cell, above the strip with the score; and cells that are not hot.
    hottest, cold = (
        (slice(height * 6 // 10, height * 8 // 10), slice(width * 13 // 16, width * 15 // 16)),
        slice(0, width // 2),
    )
    assert changed[25][hottest].mean() > 30
    assert changed[25][:, cold].mean() < 3
    assert changed[25][hottest].mean() > changed[15][hottest].mean() + 5 > changed[2][hottest].mean() + 10
    assert max(changed[2][hottest].mean(), changed[45][hottest].mean()) < 3  # more than a clip away
    blue = frames["hot"][25][height + 4 : -4, width // 2]
    assert (blue[:, 2] > blue[:, 0] + 30).mean() > 0.7  # the whole bar is the share of sight


def test_heat_of_what_is_heard_is_faint():
    """And heat below a fifth is not drawn at all."""
    size, cells = (80, 40), ((0.1, 0.1, 0.1, 0.1), (0.1, 0.1, 0.1, 1))
    opaque = {sight: np.asarray(heat_picture(why(sight, values=cells), size))[..., 3] for sight in (1.0, 0.25, 0.0)}
    assert opaque[1.0].max() == pytest.approx(0.6 * 255, abs=2)
    assert opaque[0.25].max() == pytest.approx(0.3 * 255, abs=2) and opaque[0.0].max() == 0
    assert opaque[1.0][:, :40].max() == 0 and opaque[1.0][34, 74] == opaque[1.0].max()
    heat = why()["heat"]
    assert [strength(heat, time) for time in (0.3, 0.6, 0.8, 1.2, 1.4, 1.7)] == pytest.approx([0, 0.5, 1, 1, 0.5, 0])


def test_reasons_on_a_timeline_hide_none():
    """The highest events have theirs, whatever comes before."""
    events = [(number * 2.0, number * 2.0 + 1, 0.5 + number / 200) for number in range(60)]
    found = explained([why(0.1, "Car alarm")] * 60, 120.0, events)
    rows = reason_rows(found)
    assert len(rows) == REASON_ROWS and rows[0][0][2]["start"] == 118.0
    for row in rows:
        spans = sorted((begin, begin + len(words) * LETTER_WIDTH * 120) for begin, words, _ in row)
        assert all(end <= begin + 1e-9 for (_, end), (begin, _) in pairwise(spans))
        assert spans[0][0] >= 0 and spans[-1][1] <= 120 + 1e-9
        assert all(
            words == f"{event['start']:.1f} s, sound 90%: heard Car alarm, 14x more than usual"
            for _, words, event in row
        )
    assert reason_rows(explained([None], 2.0, [(0.0, 1.0, 0.9)])) == [] == reason_rows({"duration": 2.0})


def test_timelines_say_why(tmp_path, video):
    evil = "$x_^$ <b>\x1b[31m"
    found = explained([why(0.9), why(0.1, evil)], 2.0, [(0.0, 0.5, 0.9), (1.0, 1.5, 0.8)])
    plot_timeline(found, video, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "<!-- why -->" in text and "<!-- 0.0 s, sight 90% -->" in text
    assert "1.0 s, sound 90%: heard $x_^$" in text and "\x1b" not in text
    plot_timeline(result([0.9], 2.0), video, tmp_path / "b.svg")
    assert "<!-- why -->" not in (tmp_path / "b.svg").read_text()


def test_long_reasons_are_cut(tmp_path, video):
    found = explained([why(0.1, "a name \n that no line could hold " * 5)], 2.0, [(0.0, 2.0, 0.9)])
    render_overlay(found, video, tmp_path / "o.mp4")
    with av.open(str(tmp_path / "o.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    bar = frame[364:-2]
    assert bar[:, -6:].max(axis=2).mean() < 130  # no letter at the edge
