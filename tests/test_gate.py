"""The gate: which clips are still, that these take what was computed before, and that all others are computed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import avad_hf
from avad_hf.cli import app
from avad_hf.detection.live import LiveClip, Watched, live
from avad_hf.media.cameras import Camera
from avad_hf.media.clips import Clip, Frame
from avad_hf.media.sources import open_media
from avad_hf.media.stillness import LONGEST_S, MOST_LEVELS, NUM_NOISES, Stillness
from avad_hf.models.processing import DetectorProcessor
from avad_hf.watching.board import Board
from avad_hf.watching.watcher import Eye, Watcher
from tests.media_files import frame_times, sound, write_media
from tests.named_encoders import naming_processor
from tests.test_describe import detector

pytestmark = pytest.mark.usefixtures("one_thread")

HEIGHT, WIDTH, PICTURES, FPS, RATE = 64, 96, 8, 25, 16000
CLIP_S, WINDOW_S = PICTURES / FPS, 0.96
COMPUTED, SEEN_STILL, STILL = (False, False), (True, False), (True, True)


def street() -> np.ndarray:
    """A picture with edges and flat parts, of shape `(H, W)`."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return 90.0 + 40 * (columns // 12 % 2) + 30 * (rows > 40)


class Stream:
    """Clips of pictures and sound as functions of time, and what is said of each."""

    def __init__(self, noise=1.0, loudness=0.01):
        self.rng = np.random.default_rng(0)
        self.stillness, self.number, self.noise = Stillness(RATE), 0, noise
        self.heard = loudness * self.rng.standard_normal(60 * RATE)

    def clips(self, count, shown=lambda index: street(), has_sound=True):
        return [self.clip(shown, has_sound) for _ in range(count)]

    def clip(self, shown, has_sound):
        frames, pixels = [], []
        for index in range(self.number * PICTURES, (self.number + 1) * PICTURES):
            picture = shown(index)[None] + self.noise * self.rng.standard_normal((3, HEIGHT, WIDTH))
            pixels.append(torch.from_numpy(np.clip(np.rint(picture), 0, 255).astype(np.uint8)))
            first = round(index / FPS * RATE)
            window = torch.from_numpy(self.heard[first : first + round(WINDOW_S * RATE)].astype(np.float32))
            heard = {"sound": window, "first_sample": first} if has_sound else {}
            frames.append(Frame(index / FPS, (index + 1) / FPS, pixels[-1], **heard))
        self.number += 1
        return self.stillness.judge(Clip(tuple(frames), PICTURES), torch.stack(pixels))

    def sound_from(self, clip, samples):
        """Other sound from the end of the windows of a clip on, counted from now."""
        first = round((self.number + clip) * CLIP_S * RATE) + round(WINDOW_S * RATE)
        self.heard[first : first + len(samples)] = samples


def walker(index):
    """Somebody of 3 by 2 pixels who moves a pixel a picture."""
    picture = street()
    picture[30:33, index % WIDTH : index % WIDTH + 2] += 60
    return picture


@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_a_still_picture_with_noise_is_still_from_the_second_clip_on(noise):
    assert Stream(noise).clips(20) == [COMPUTED] + [STILL] * 19
    assert Stream(noise).clips(3, has_sound=False) == [COMPUTED, STILL, STILL]


def test_a_noisy_camera_is_still_as_soon_as_its_noise_is_known():
    stream = Stream(4.0)
    before, after = stream.clips(NUM_NOISES), stream.clips(12)
    assert COMPUTED in before[1:] and after == [STILL] * 12


def test_noise_that_rises_is_computed_until_it_is_known():
    stream = Stream(0.5)
    assert stream.clips(12)[1:] == [STILL] * 11
    stream.noise = 4.0
    assert stream.clips(1) == [COMPUTED]
    stream.clips(NUM_NOISES)
    assert stream.clips(8) == [STILL] * 8


@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_somebody_small_who_walks_is_never_still(noise):
    stream = Stream(noise)
    stream.clips(12)
    assert stream.clips(8, walker) == [COMPUTED] * 8
    # The clip after the last one that moved differs from it; then the street is still again.
    assert stream.clips(3) == [COMPUTED, STILL, STILL]


def test_somebody_who_came_to_stand_there_is_computed_once():
    stream = Stream()
    stream.clips(3)
    assert stream.clips(3, lambda index: walker(50)) == [COMPUTED, STILL, STILL]


def test_another_picture_is_computed():
    stream = Stream()
    stream.clips(12)
    assert stream.clips(2, lambda index: street()[::-1]) == [COMPUTED, STILL]


def test_all_lamps_at_once_are_no_noise():
    """Every block changes by the same: by no more than the largest noise allows, and within one clip."""
    stream = Stream()
    stream.clips(12)
    step = (stream.number + 0.5) * PICTURES
    assert stream.clips(3, lambda index: street() + 6 * (index > step)) == [COMPUTED, COMPUTED, STILL]


def test_what_changes_slowly_does_not_creep():
    """A lamp: a level brighter each clip, which no two neighbours show."""
    stream = Stream()
    stream.clips(4)

    def lamp(index):
        picture = street()
        picture[:20, :20] += index // PICTURES - 3
        return picture

    said = stream.clips(24, lamp)
    computed = [number for number, one in enumerate(said) if one == COMPUTED]
    # After so many clips it is so many levels brighter than the last one that was computed.
    assert np.diff([-1, *computed]).max() <= MOST_LEVELS and len(computed) < 12


def test_the_longest_run():
    stream = Stream()
    said = stream.clips(2 * int(LONGEST_S / CLIP_S) + 4)
    first, second, third = (number for number, one in enumerate(said) if one == COMPUTED)
    assert first == 0 and second == third - second == int(LONGEST_S / CLIP_S + 1e-9) + 1


def test_a_bang_in_a_still_picture_is_heard():
    stream = Stream()
    stream.clips(5)
    stream.sound_from(0, 0.2 * stream.rng.standard_normal(RATE // 10))
    # It is in the windows of the next second; what comes after it differs from it once more.
    said = stream.clips(8)
    assert said[0] == SEEN_STILL and said[-3:] == [STILL] * 3
    assert all(picture for picture, _ in said)


@pytest.mark.parametrize(("before", "after"), [(0.01, 0.0), (0.0, 0.01), (0.01, 0.02), (0.02, 0.01)])
def test_sound_that_ends_begins_or_changes_in_level_is_computed(before, after):
    stream = Stream(loudness=before)
    assert stream.clips(5)[1:] == [STILL] * 4
    stream.sound_from(0, after * stream.rng.standard_normal(20 * RATE))
    said = stream.clips(10)
    assert SEEN_STILL in said[:4] and said[-4:] == [STILL] * 4
    # A part of a decibel is no change: twice as loud is six.
    stream.sound_from(0, 1.05 * after * stream.rng.standard_normal(20 * RATE))
    assert stream.clips(6) == [STILL] * 6


def test_a_whistle_below_the_level_of_the_noise_is_heard():
    """The noise is ten times as strong as the tone, but not in the tone's band."""
    stream = Stream(loudness=0.1)
    stream.clips(3)
    first = round((stream.number * CLIP_S + WINDOW_S) * RATE)
    stream.heard[first : first + RATE] += 0.045 * np.sin(2 * np.pi * 700 * np.arange(RATE) / RATE)
    assert stream.clips(1) == [SEEN_STILL]


# Features


@pytest.fixture(scope="module")
def pipe():
    return detector(naming_processor())


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Twelve clips of 0.64 s, still but for somebody from 5.4 to 6.2 s, with a bang at 3 s; lossless, with noise."""
    rng = np.random.default_rng(0)
    samples = sound(0, 7.68, RATE)
    samples[:, 3 * RATE : 3 * RATE + 800] += 0.5 * rng.standard_normal(800)

    def picture(index, width, height):
        noisy = np.repeat(street()[..., None], 3, axis=2) + 1.5 * rng.standard_normal((height, width, 3))
        if 135 <= index < 155:
            noisy[20:44, 4 * (index - 135) : 4 * (index - 135) + 12] = 240
        return np.clip(noisy, 0, 255).astype(np.uint8)

    path = tmp_path_factory.mktemp("gate") / "street.mkv"
    kept = {"video_codec": "ffv1", "audio_codec": "pcm_s16le", "size": (WIDTH, HEIGHT)}
    return write_media(path, frame_times(FPS, 7.68), samples, RATE, pictures=picture, **kept)


@pytest.fixture(scope="module")
def clips(pipe, video):
    with open_media(video) as media:
        return list(pipe.processor.clips(media))


def calls(processor):
    return [encoder.calls for encoder in processor.encoders.values()]


def test_still_clips_take_the_features_of_the_last_computed_one_and_no_encoder_runs(pipe, clips):
    processor = pipe.processor
    gated = processor.gated()
    rows, ran = [], []
    for clip in clips:
        before = calls(processor)
        rows.append(gated.encode_and_name([clip]))
        ran.append(tuple(after > one for after, one in zip(calls(processor), before, strict=True)))
    # Somebody walks in the ninth and tenth clip, and the eleventh differs from these.
    assert [number for number, (sees, _) in enumerate(ran) if sees] == [0, 8, 9, 10]
    # The sound begins in the windows of the first two clips, the bang is in those of three, and what comes after each
    # differs from it.
    assert [number for number, (_, hears) in enumerate(ran) if not hears] == [3, 11]
    assert gated.num_clips == len(clips) and gated.reused == {"pictures": 8, "sound": 2}
    last = {}
    for clip, (sees, hears), (features, names) in zip(clips, ran, rows, strict=True):
        wanted, wanted_names = processor.encode_and_name([clip])
        last |= {"visual_features": wanted["visual_features"], "seen": wanted_names["seen"]} if sees else {}
        last |= {"audio_features": wanted["audio_features"], "heard": wanted_names["heard"]} if hears else {}
        found = {**features, **names}
        assert all(torch.equal(found[name], rows) for name, rows in last.items())
        for name in ("clip_times", "clip_mask", "has_audio"):
            assert torch.equal(features[name], wanted[name])


def test_batches_of_several_clips_are_judged_one_by_one(pipe, clips):
    one, several = pipe.processor.gated(), pipe.processor.gated()
    expected = [one.encode([clip]) for clip in clips]
    found = [several.encode(clips[begin : begin + 5]) for begin in (0, 5, 10)]
    for name in ("visual_features", "audio_features", "clip_times"):
        torch.testing.assert_close(*(torch.cat([rows[name] for rows in some], dim=1) for some in (found, expected)))
    assert several.reused == one.reused


def test_without_the_gate_nothing_changes_and_with_it_scores_hardly_do(pipe, video):
    plain, gated = pipe(video), pipe(video, gate=True)
    assert pipe(video, gate=False) == plain and "reused" not in plain
    assert gated["reused"] == {"pictures": 8, "sound": 2}
    words = "8 of 12 clips were still and took what an earlier clip shows; 2 of these took that of its sound too."
    assert [*plain["warnings"], words] == gated["warnings"]
    scores, gated_scores = (np.array([clip["score"] for clip in result["clips"]]) for result in (plain, gated))
    # The ones that move are computed; others move scores less than what is seen does.
    assert (gated_scores[8:11] == scores[8:11]).all() and (gated_scores[1:8] != scores[1:8]).any()
    assert np.abs(gated_scores - scores).max() < np.ptp(scores) / 3
    assert [(clip["start"], clip["end"]) for clip in gated["clips"]] == [
        (clip["start"], clip["end"]) for clip in plain["clips"]
    ]
    # Each of several videos has its own.
    assert pipe([video, video], streams=2, gate=True) == [gated, gated]
    assert pipe(video, gate=True, describe=True, explain=True)["reused"] == gated["reused"]


@pytest.mark.parametrize("neighbours", [0, 1])
def test_live_and_offline_are_the_same(pipe, video, neighbours):
    pipe = detector(pipe.processor, neighbours)
    offline = pipe(video, gate=True)
    records = live([Watched(Camera(video, quiet_s=0.1), pipe, gate=True)])
    clips = [record for record in records if isinstance(record, LiveClip)]
    assert [one.clip.score for one in clips] == pytest.approx([one["score"] for one in offline["clips"]], abs=1e-6)
    assert [number for number, one in enumerate(clips) if not one.is_reused] == [0, 8, 9, 10]


def test_records_and_health_say_what_was_reused(pipe, video, monkeypatch):
    monkeypatch.setitem(Camera.__init__.__kwdefaults__, "quiet_s", 0.1)
    records = [one for one in avad_hf.watch(video, pipe, gate=True) if one["type"] == "clip"]
    assert [number for number, one in enumerate(records) if "reused" not in one] == [0, 8, 9, 10]
    incidents = SimpleNamespace(add=lambda *given: [], end=lambda: [])
    board = Board(["yard"])
    watcher = Watcher([Eye(Watched(Camera(video, "yard"), pipe, gate=True), incidents)], board=board)
    list(watcher.run())
    watcher.close()
    (camera,) = board.state()["cameras"]
    assert (camera["health"]["clips"], camera["health"]["reused"]) == (12, 8)


def test_what_has_no_features_is_refused(pipe, video, monkeypatch):
    words = "AvacaProcessor cannot spare still clips: its detector reads the pictures themselves"
    monkeypatch.setattr(type(pipe.processor), "gated", DetectorProcessor.gated)
    with pytest.raises(ValueError, match=words):
        pipe(video, gate=True)
    with pytest.raises(ValueError, match=words):
        Watched(Camera(video), pipe, gate=True)


def test_the_command_refuses_it_where_it_says_nothing(video):
    for arguments, words in (
        (["detect", video, "--gate"], "--gate is an option of detectors"),
        (["watch", "--config", "x.toml", "--gate"], "--gate stands in the file of --config"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2 and words in result.output, result.output
