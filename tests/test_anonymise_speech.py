"""Speech that is found and hidden. What speaks here is synthesised: pulses of a voice through moving formants."""

import sys
import tracemalloc
from fractions import Fraction
from functools import partial
from importlib import metadata

import av
import numpy as np
import pytest
from scipy.signal import butter, lfilter, sosfilt

from avad_hf.anonymise.sound import hide_sound
from avad_hf.anonymise.speech import SpeechFinder, join_frames
from avad_hf.media.audio import SoundBlock, SoundTrack
from avad_hf.media.container import SoundFile, planar_samples
from avad_hf.media.coverage import Coverage
from avad_hf.media.encode import SoundPiece, write_video
from avad_hf.media.errors import MediaError
from avad_hf.media.sources import open_media

from .media_files import frame_times, write_media

VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
SYLLABLE_S = 0.25


def babble(seconds: float, rate: int = 16000, num_vowels: int = 5) -> np.ndarray:
    """Syllables of a voice that say nothing, and that the detector is sure of."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 120 * (1 + 0.12 * np.sin(2 * np.pi * 0.7 * time) + 0.06 * np.sin(2 * np.pi * 2.3 * time))
    source = lfilter([1], [1, -0.95], np.diff(np.floor(np.cumsum(pitch) / rate), prepend=0))
    out, states, step = np.zeros(len(time)), [np.zeros(2) for _ in range(3)], rate // 100
    for begin in range(0, len(time), step):
        part, syllable = source[begin : begin + step], begin / rate / SYLLABLE_S
        way = np.clip((syllable % 1 - 0.6) / 0.4, 0, 1)
        now, then = (VOWELS[number % num_vowels] for number in (int(syllable), int(syllable) + 1))
        for index, width in enumerate((60, 90, 120)):
            turn = 2 * np.pi * (now[index] * (1 - way) + then[index] * way) / rate
            radius = np.exp(-np.pi * width / rate)
            poles = [1, -2 * radius * np.cos(turn), radius**2]
            part, states[index] = lfilter([sum(poles)], poles, part, zi=states[index])
        out[begin : begin + step] = part
    out *= np.sqrt(np.sin(np.pi * (time / SYLLABLE_S % 1)))
    return 0.5 * out / np.abs(out).max()


def street(seconds: float, rate: int = 16000, level: float = 0.002, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(channels, round(seconds * rate))) * level


def with_speech(spans, seconds: float, rate: int = 16000, channels: int = 1) -> np.ndarray:
    samples = street(seconds, rate, channels=channels)
    for begin, end in spans:
        spoken = babble(end - begin, rate)
        samples[:, round(begin * rate) :][:, : len(spoken)] += spoken
    return samples


@pytest.fixture(scope="module")
def finder():
    return SpeechFinder()


def found(finder, tmp_path, samples, rate=16000, **options):
    return finder.find(SoundFile(write_media(tmp_path / "a.mkv", (), samples, rate, **options)))


def covers(spans, spoken, slack=0.75):
    """Whether each stretch lies in one that was found, and none of them is much longer."""
    return len(spans) == len(spoken) and all(
        begin - slack <= first <= begin and end <= last <= end + slack
        for (first, last), (begin, end) in zip(spans, spoken, strict=True)
    )


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_speech_is_found_where_it_is(finder, tmp_path, rate):
    spoken = [(2.0, 4.0), (7.0, 8.5)]
    assert covers(found(finder, tmp_path, with_speech(spoken, 10.0, rate), rate), spoken)


def test_times_count_from_the_start_of_the_file(finder, tmp_path):
    samples = with_speech([(2.0, 4.0)], 6.0)
    path = write_media(tmp_path / "a.mkv", frame_times(10, 9.5), samples, 16000, sound_start=4.0)
    with open_media(path) as media:
        assert covers(finder.find(media), [(6.0, 8.0)])


def test_speech_across_blocks_is_one_stretch(finder, tmp_path):
    """The detector hears 16.4 s at a time."""
    spoken = [(14.0, 19.0), (31.0, 33.5)]
    assert covers(found(finder, tmp_path, with_speech(spoken, 36.0)), spoken)


def test_sound_beside_a_video_is_heard(finder, tmp_path):
    sound = write_media(tmp_path / "a.wav", (), with_speech([(2.0, 4.0)], 6.0), 16000)
    video = write_media(tmp_path / "a.mp4", frame_times(10, 5.0))
    with open_media({"video": video, "audio": sound}) as media:
        assert covers(finder.find(media), [(2.0, 4.0)])


@pytest.mark.parametrize("samples", [street(20.0), np.zeros((1, 320000))], ids=["noise", "silence"])
def test_no_speech_no_spans(finder, tmp_path, samples):
    assert found(finder, tmp_path, samples) == []


def test_a_video_without_sound_has_no_speech(finder, tmp_path):
    with open_media(write_media(tmp_path / "a.mp4", frame_times(10, 1.0))) as media:
        assert finder.find(media) == []


def test_a_pause_in_the_recording_is_silence(finder, tmp_path):
    """The second half is an hour later by the file's clock."""
    path, hour = tmp_path / "a.mkv", 3600.0
    samples = with_speech([(2.0, 4.0)], 6.0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000)
        stream.layout = "mono"
        for start in (0.0, hour):
            for begin in range(0, 96000, 1600):
                block = (samples[:, begin : begin + 1600] * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
                frame.pts = round(start * 16000) + begin
                container.mux(stream.encode(frame))
    assert covers(finder.find(SoundFile(str(path))), [(2.0, 4.0), (hour + 2.0, hour + 4.0)])


def test_frames_are_padded_and_joined():
    frames = np.zeros(200, np.float32)
    frames[[50, 52, 60]] = 0.06, 0.3, 0.06  # kept for the one in the middle
    frames[100] = 0.19  # not sure enough, and too far from the others: 1.2 s away
    frames[[150, 170]] = 0.9  # 0.64 s apart: with 0.3 s on either side there is no pause
    spans = list(join_frames(np.array_split(frames, 7), start=10.0))
    at = 0.032 * np.array([50, 61, 150, 171]) + np.array([-0.3, 0.3, -0.3, 0.3]) + 10.0
    assert spans == [pytest.approx(at[:2]), pytest.approx(at[2:])]


def test_speech_at_the_very_start_begins_there():
    assert list(join_frames([np.ones(1)], start=3.0)) == [(3.0, pytest.approx(3.332))]


def test_sound_that_cannot_be_decoded_is_refused(finder, tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.wav", (), street(1.0), 16000)
    monkeypatch.setattr(SoundFile, "sound_stream", lambda self, container: None)
    with pytest.raises(MediaError, match=r"a\.wav: its sound cannot be decoded, so speech in it .* Convert the sound"):
        finder.find(SoundFile(path))


def test_weights_are_named(finder):
    assert finder.origin["package"] == f"silero-vad {metadata.version('silero-vad')}"
    assert finder.origin["weights"] == "silero_vad_16k_sequence.onnx" and len(finder.origin["sha256"]) == 64


def no_package(name):
    raise metadata.PackageNotFoundError(name)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(metadata, "distribution", no_package)
    with pytest.raises(ImportError, match=r"silero-vad is not installed.* pip install .avad-hf\[anonymise\]"):
        SpeechFinder()


def test_without_onnxruntime_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="onnxruntime is not installed"):
        SpeechFinder()


def test_a_package_without_the_weights_is_too_old(monkeypatch):
    monkeypatch.setattr("avad_hf.anonymise.speech.WEIGHTS", "silero_vad/data/none.onnx")
    with pytest.raises(ImportError, match=r"has no silero_vad/data/none\.onnx\. .*pip install -U silero-vad"):
        SpeechFinder()


def test_the_package_is_not_imported(finder):
    """It would set torch to one thread."""
    assert "silero_vad" not in sys.modules


def pieces(samples: np.ndarray, rate: int, size: int = 1000, start: float = 0.0):
    for begin in range(0, samples.shape[1], size):
        yield SoundPiece(start + begin / rate, samples[:, begin : begin + size], rate, "mono")


def hidden(samples, rate, spans, method, size=1000, start=0.0):
    return np.concatenate([p.samples for p in hide_sound(pieces(samples, rate, size, start), spans, method)], axis=1)


TYPES = [np.uint8, np.int16, np.int32, np.float32, np.float64]


def typed(samples, dtype):
    if dtype == np.uint8:
        return np.rint(samples * 127 + 128).astype(dtype)
    return (samples * np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else samples).astype(dtype)


@pytest.mark.parametrize("method", ["mute", "blur"])
@pytest.mark.parametrize("dtype", TYPES)
def test_samples_outside_stay_bit_for_bit(method, dtype):
    samples, rate = typed(with_speech([(1, 3)], 5.0, channels=2), dtype), 16000
    out = hidden(samples, rate, [(0.9, 3.1), (4.0, 4.4)], method)
    assert out.dtype == dtype and out.shape == samples.shape
    is_inside = np.zeros(out.shape[1], bool)
    is_inside[14400:49600] = is_inside[64000:70400] = True
    np.testing.assert_array_equal(out[:, ~is_inside], samples[:, ~is_inside])
    assert (out[:, is_inside] != samples[:, is_inside]).mean() > (0.1 if dtype == np.uint8 else 0.8)


@pytest.mark.parametrize("dtype", TYPES)
def test_mute_is_silent_inside_and_fades(dtype):
    samples = typed(np.full((1, 16000), 0.5), dtype)
    out = hidden(samples, 16000, [(0.2, 0.8)], "mute")[0].astype(float)
    silence, whole = (128.0 if dtype == np.uint8 else 0.0), float(samples[0, 0])
    assert (out[3360:12640] == silence).all()
    # Half of it is left in the middle of the fade, and no step is larger than a fade of 10 ms needs.
    assert out[3280] == pytest.approx((whole + silence) / 2, abs=max(1.0, 0.01 * whole))
    assert np.abs(np.diff(out)).max() <= (whole - silence) / 100 + 1


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2), (22050, 1), (44100, 6), (48000, 2)])
def test_blur_keeps_loudness_and_colour_and_nothing_else(rate, channels):
    """The voice says the same two vowels every half second, and grows weaker by 20 dB."""
    gains = np.linspace(1, 0.2, channels)[:, None]
    fading = 10 ** -np.linspace(0, 1, 6 * rate)
    samples = gains * fading * (babble(6.0, rate, num_vowels=2) + street(6.0, rate, 0.01))
    out = hidden(samples, rate, [(0.0, 6.0)], "blur")
    assert out.shape == samples.shape
    # Channels get the same noise: what was equal but for its level still is.
    np.testing.assert_allclose(out, gains * out[:1], atol=1e-9)
    levels = []
    for low, high in ((120, 240), (240, 480), (480, 960), (960, 1920), (1920, 3840)):
        band = butter(4, (low, high), "bandpass", fs=rate, output="sos")
        before, after = (sosfilt(band, x[0])[: rate * 6].reshape(12, -1) for x in (samples, out))
        levels.append(10 * np.log10((after**2).mean(axis=1) / (before**2).mean(axis=1))[1:-1])
        assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 0.25
    # Half a second of noise has 2 dB more or less by chance in the lowest of these bands.
    assert np.quantile(np.abs(levels), 0.9) < 3.0 and np.abs(levels).max() < 6.0


def modulation(samples, rate, hz):
    """How strongly the loudness goes up and down at a rate, beside its mean."""
    loudness = (samples.astype(float).reshape(-1, rate // 50) ** 2).mean(axis=1)
    turns = np.exp(2j * np.pi * hz * np.arange(len(loudness)) / 50)
    return np.abs((loudness * turns).mean()) / loudness.mean()


def test_syllables_are_gone_after_blur():
    samples = babble(8.0)[None]
    out = hidden(samples, 16000, [(0.0, 8.0)], "blur")
    assert modulation(samples, 16000, 4.0) > 0.3
    assert modulation(out, 16000, 4.0) < 0.05


def test_blur_is_random_each_time():
    samples = with_speech([(0, 3)], 3.0)
    first, second = (hidden(samples, 16000, [(0, 3)], "blur") for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


@pytest.mark.parametrize("size", [1, 777, 100000])
@pytest.mark.parametrize("seconds", [0.02, 0.3, 0.6, 2.7])
def test_blur_of_any_length_in_pieces_of_any_size(size, seconds):
    samples = street(3.0, 8000, 0.1)
    if size == 1:
        samples = samples[:, :6000]
    end = min(0.1 + seconds, 0.7 if size == 1 else 3.0)
    out = hidden(samples, 8000, [(0.1, end)], "blur", size)
    assert out.shape == samples.shape
    inside = slice(800, round(end * 8000))
    np.testing.assert_array_equal(np.delete(out, np.r_[inside], 1), np.delete(samples, np.r_[inside], 1))
    if seconds > 0.1:  # shorter noise is as loud as chance has it
        assert 20 * np.log10(out[:, inside].std() / samples[:, inside].std()) == pytest.approx(0, abs=3.0)


def test_times_count_and_not_samples():
    """Sound that begins late, and pauses: the stretch lies where its seconds are."""
    early, late = street(1.0), street(1.0)
    both = [*pieces(early, 16000, start=5.0), *pieces(late, 16000, start=60.0)]
    out = np.concatenate([p.samples for p in hide_sound(iter(both), [(5.5, 60.25)], "mute")], axis=1)[0]
    silent = np.flatnonzero(np.abs(out) < 1e-9)
    assert silent.tolist() == list(range(8160, 19841))


def test_rate_and_channels_may_change_inside_a_stretch():
    both = [*pieces(street(1.0), 16000), *pieces(street(1.0, 8000, channels=2), 8000, start=1.0)]
    out = list(hide_sound(iter(both), [(0.5, 1.5)], "blur"))
    assert sum(p.samples.shape[1] for p in out if p.rate == 16000) == 16000
    assert sum(p.samples.shape[1] for p in out if len(p.samples) == 2) == 8000


def test_samples_that_are_no_numbers_do_not_spread():
    samples = street(2.0)
    samples[0, 9000] = np.nan
    assert np.isfinite(hidden(samples, 16000, [(0.5, 1.5)], "blur")).all()


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"Unknown method to hide speech: 'beep'\. Methods: mute, blur\."):
        hide_sound(iter(()), [], "beep")


def test_memory_does_not_grow_with_the_length(finder):
    """Three minutes are 23 MB; so much is never held."""

    class Endless:
        name, has_audio, heard = "endless", True, Coverage("sound", is_continuous=True)

        def blocks(self):
            noise = np.random.default_rng(0).normal(size=16000).astype(np.float32) * 0.01
            for second in range(180):
                self.heard.add(second, second + 1.0)
                yield SoundBlock(float(second), noise, 16000)

        def sound(self, rate):
            return SoundTrack(self.blocks(), rate)

    def long():
        for second in range(180):
            yield SoundPiece(float(second), np.ones((1, 16000)), 16000, "mono")

    tracemalloc.start()
    assert finder.find(Endless()) == []
    count = sum(p.samples.shape[1] for p in hide_sound(long(), [(1.0, 179.0)], "blur"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2_880_000
    assert peak < 10e6


CLICKS = [0.3, 0.7, 2.5, 3.1, 3.9]


def clicking(rate, channels=1):
    samples = np.zeros((channels, 5 * rate))
    for at in CLICKS:
        samples[:, round(at * rate)] = 0.9
    return samples


def heard_clicks(path):
    """When the loudest samples sound, in seconds."""
    sound, times, loud = SoundFile(str(path)), [], []
    with sound.open() as container:
        for frame in sound.decode(container, sound.sound_stream(container), "sound"):
            samples = planar_samples(frame)
            scale = np.iinfo(samples.dtype).max if np.issubdtype(samples.dtype, np.integer) else 1.0
            times.append(frame.time - sound.start + np.arange(frame.samples) / frame.sample_rate)
            loud.append(np.abs(samples / scale).max(axis=0))
    times, loud = np.concatenate(times), np.concatenate(loud)
    found = []
    while loud.max() > 0.2:
        found.append(times[loud.argmax()])
        loud[np.abs(times - found[-1]) < 0.05] = 0
    return sorted(found)


def rewritten(source, target, change):
    with open_media(source) as media:
        size = (64, 48)
        pictures = ((time, np.zeros((48, 64, 3), np.uint8)) for time in frame_times(25, 5.0))
        write_video(target, pictures, size, 25, sound_of=media, change_sound=change)
    return target


MUTED = partial(hide_sound, spans=[(1.0, 2.0)], method="mute")


@pytest.mark.parametrize(
    ("codec", "container", "rate", "family"),
    [
        ("aac", "mp4", 48000, "aac"),
        ("aac", "mkv", 8000, "aac"),
        ("libmp3lame", "mkv", 44100, "mp3"),
        ("libmp3lame", "mkv", 8000, "aac"),
        ("libopus", "mkv", 48000, "opus"),
        ("ac3", "mkv", 48000, "ac3"),
        ("flac", "mkv", 22050, "flac"),
        ("alac", "mp4", 48000, "alac"),
        ("pcm_s16le", "avi", 16000, "flac"),
        ("pcm_alaw", "mov", 8000, "flac"),
        ("mp2", "mkv", 44100, "aac"),
    ],
)
def test_sound_that_is_encoded_anew_stays_in_step(tmp_path, codec, container, rate, family):
    source = tmp_path / f"a.{container}"
    write_media(source, frame_times(25, 5.0), clicking(rate, 2), rate, audio_codec=codec)
    out = rewritten(str(source), tmp_path / "b.mp4", MUTED)
    before, after = heard_clicks(source), heard_clicks(out)
    assert len(before) == len(CLICKS) and after == pytest.approx(before, abs=0.001)
    with av.open(str(out)) as written:
        stream = written.streams.audio[0]
        assert stream.codec_context.codec.canonical_name == family and stream.layout.name == "stereo"


@pytest.mark.parametrize(("rate", "family"), [(44100, "mp3"), (8000, "aac")])
def test_mp3_is_copied_where_an_mp4_takes_it(tmp_path, rate, family):
    source = write_media(tmp_path / "a.mkv", frame_times(25, 5.0), clicking(rate), rate, audio_codec="libmp3lame")
    out = rewritten(source, tmp_path / "b.mp4", None)
    assert heard_clicks(out) == pytest.approx(heard_clicks(source), abs=0.001)
    with av.open(str(out)) as written, av.open(source) as read:
        assert written.streams.audio[0].codec_context.codec.canonical_name == family
        packets = [[bytes(p) for p in file.demux(audio=0) if p.size] for file in (written, read)]
    assert (packets[0] == packets[1]) is (family == "mp3")


def read_samples(path):
    with av.open(str(path)) as container:
        return np.concatenate([planar_samples(frame) for frame in container.decode(audio=0)], axis=1)


@pytest.mark.parametrize(
    ("codec", "container", "channels"),
    [("pcm_u8", "avi", 1), ("pcm_s16le", "mov", 2), ("flac", "mkv", 2), ("alac", "mp4", 1), ("flac", "mkv", 6)],
)
@pytest.mark.parametrize("method", ["mute", "blur"])
def test_lossless_sound_stays_so_outside(tmp_path, codec, container, channels, method):
    source = tmp_path / f"a.{container}"
    write_media(source, frame_times(25, 5.0), street(5.0, 16000, 0.1, channels), 16000, audio_codec=codec)
    out = rewritten(str(source), tmp_path / "b.mp4", partial(hide_sound, spans=[(1.0, 2.0)], method=method))
    before, after = read_samples(source), read_samples(out)
    if before.dtype == np.uint8:
        before = (before.astype(np.int16) - 128) * 256
    assert before.shape == after.shape and before.dtype == after.dtype
    outside = np.r_[0:16000, 32000:80000]
    np.testing.assert_array_equal(before[:, outside], after[:, outside])
    inside = after[:, 16200:31800].astype(float)
    assert (
        (inside == 0).all() if method == "mute" else abs(np.corrcoef(inside[0], before[0, 16200:31800])[0, 1]) < 0.05
    )


def test_the_bit_rate_stays_about_the_same(tmp_path):
    source = tmp_path / "a.mp4"
    noise = street(5.0, 48000, 0.1, 2)
    write_media(source, frame_times(25, 5.0), noise, 48000, audio_codec="aac")
    rates = []
    for path in (source, rewritten(str(source), tmp_path / "b.mp4", MUTED)):
        with av.open(str(path)) as container:
            rates.append(container.streams.audio[0].bit_rate)
    assert rates[1] == pytest.approx(rates[0], rel=0.25)


@pytest.mark.parametrize("family", ["aac", "flac"])
def test_a_pause_stays_as_long_as_it_was(tmp_path, family):
    """Two seconds and 377 samples that no frame of an encoder divides, with clicks near both of its ends."""
    clicks, source = [], tmp_path / "a.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("pcm_s16le" if family == "flac" else "mp2", rate=48000)
        stream.layout = "mono"
        for start, end in ((0, 1152 * 40), (1152 * 124 + 377, 1152 * 200 + 377)):
            for begin in range(start, end, 1152):
                block = np.zeros((1, 1152), np.int16)
                if begin in (start + 1152, end - 2304):
                    block[0, 100] = 30000
                    clicks.append((begin + 100) / 48000)
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), begin
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video = write_media(tmp_path / "v.mp4", frame_times(25, 5.0))
    out = rewritten({"video": video, "audio": str(source)}, tmp_path / "b.mp4", MUTED)
    after, before = heard_clicks(out), heard_clicks(source)
    assert len(clicks) == len(before) == 4 and after == pytest.approx(before, abs=0.001)


def test_found_and_hidden_in_a_whole_file(finder, tmp_path):
    source = write_media(tmp_path / "a.mkv", frame_times(25, 5.0), with_speech([(2.0, 4.0)], 5.0, channels=2), 16000)
    with open_media(source) as media:
        spans = finder.find(media)
    assert covers(spans, [(2.0, 4.0)])
    out = rewritten(source, tmp_path / "b.mp4", partial(hide_sound, spans=spans, method="mute"))
    assert finder.find(SoundFile(str(out))) == []
    out = rewritten(source, tmp_path / "c.mp4", partial(hide_sound, spans=spans, method="blur"))
    assert modulation(read_samples(out)[:1, 32000:64000], 16000, 4.0) < 0.05
