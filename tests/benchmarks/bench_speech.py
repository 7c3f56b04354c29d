"""Is speech found, is it unintelligible when it is hidden, and what does that do to a detector?

python tests/benchmarks/bench_speech.py [find | words | scores ...]

Needs Debian's packages pocketsphinx-testdata and espeak-ng, and pip install pocketsphinx; with pip install --no-deps
pyannote.audio its recorded telephone call is heard too.

find: real speech (13 recordings with the test data of pocketsphinx, one with pyannote.audio) and synthetic speech
(espeak-ng, eight languages, two voices each) in drawn street sound, with 3 s of the street before and after. Speech
are those 32 ms whose level is within 25 dB of the recording's loud ones. Shares of it that are hidden, and of all the
other time, at so many dB of speech over street; and of drawn sound without speech, where a crowd has drawn voices.

words: words that pocketsphinx gets right of the ten recordings whose text is known, and how many of the ten it tells
apart when it may choose between these ten sentences only.

scores: AUC of the demonstration model on drawn videos that it was not trained on, as drawn and with real speech mixed
in, as loud as this over the rest. Hidden is what was found.

Measured (silero-vad 6.2.3; 95% intervals of 2,000 draws of recordings or videos):

    hidden of the speech   20 dB              5 dB               0 dB               -5 dB
    14 real                0.995 [0.99, 1.00] 0.991 [0.99, 1.00] 0.986 [0.98, 1.00] 0.885 [0.83, 0.97]
    16 synthetic           1.000              1.000              1.000              0.960 [0.92, 0.99]
    hidden of other time, real: 0.20, 0.25, 0.29 and 0.25, with the paddings and the pauses between words
    no speech: crossing 0.079, underpass 0.073, avenue 0.010, overlook 0.002, junction 0.054, crowd 0.470 of the time

    words right: 75 of 92, none after mute or blur; of ten sentences 10 told apart, none after mute or blur

    AUC, 120 videos    before               change by mute           change by blur
    as drawn           1.000                -0.009 [-0.026, 0.000]   -0.006 [-0.017, 0.000]
    speech at 5 dB     0.705 [0.60, 0.80]   -0.121 [-0.200, -0.043]  -0.126 [-0.204, -0.051]
    speech at -5 dB    0.909 [0.85, 0.96]   -0.233 [-0.316, -0.147]  -0.155 [-0.226, -0.089]
"""

import contextlib
import re
import subprocess
import sys
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import soundfile

from avad_hf.anonymise.sound import METHODS, hide_sound
from avad_hf.anonymise.speech import FRAME, RATE_HZ, SpeechFinder
from avad_hf.media.container import SoundFile
from avad_hf.media.encode import SoundPiece
from avad_hf.metrics.ranking import roc_auc
from avad_hf.metrics.resampling import Estimate
from avad_hf.synthetic.world import clip_pictures, clip_sound, plan_world

RECORDED = Path("/usr/share/pocketsphinx/test/data")
SCENES = ("crossing", "underpass", "avenue", "overlook", "junction")
# What the demonstration model was trained on, in worlds of other numbers.
KNOWN_SCENES, WORLD, NUM_VIDEOS = ("crossing", "underpass"), 77, 60
SNRS_DB = (20, 10, 5, 0, -5)
# Speech over the rest in the videos that a detector scores.
OVER_DB = (5, -5)
SPOKEN = {
    "en-us": "meet me at the corner of the second street at half past nine",
    "en-gb": "the man with the red jacket lives in number forty two",
    "de": "wir treffen uns morgen um neun Uhr vor dem Bahnhof",
    "fr": "la voiture blanche est partie sans payer le parking",
    "it": "ho lasciato le chiavi sul tavolo della cucina",
    "es": "mi hermana vive en la casa que está al lado del mercado",
    "mt": "iltqajna quddiem il-knisja filgħodu kmieni",
    "ru": "я позвоню тебе завтра после работы",
}


@cache
def finder() -> SpeechFinder:
    return SpeechFinder()


def at_16_khz(path: str | Path) -> np.ndarray:
    return SoundFile(str(path)).sound(RATE_HZ).read().numpy().astype(np.float64)


def recordings() -> dict[str, np.ndarray]:
    found = {path.stem: at_16_khz(path) for path in sorted(RECORDED.glob("*/*.wav"))}
    for name in ("goforward", "numbers", "something"):
        found[name] = np.fromfile(RECORDED / f"{name}.raw", np.int16) / 32768
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["call"] = at_16_khz(
            metadata.distribution("pyannote.audio").locate_file("pyannote/audio/sample/sample.wav")
        )
    return found


def synthetic(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for language, text in SPOKEN.items():
        for voice in (language, f"{language}+f3"):
            path = folder / f"{voice}.wav"
            subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), text], check=True)
            found[voice] = at_16_khz(path)
    return found


def is_spoken(speech: np.ndarray) -> np.ndarray:
    """Whether there is speech in each frame of a clean recording."""
    count = len(speech) // FRAME
    level = 10 * np.log10((speech[: count * FRAME].reshape(count, FRAME) ** 2).mean(axis=1) + 1e-12)
    return level > np.percentile(level, 95) - 25


def mixed(speech: np.ndarray, background: np.ndarray, snr_db: float) -> np.ndarray:
    """Speech over a background of the same length, whose loudness stays."""
    spoken = np.repeat(is_spoken(speech), FRAME)
    loud = np.sqrt((speech[: len(spoken)][spoken] ** 2).mean())
    return background + speech / loud * np.sqrt((background**2).mean()) * 10 ** (snr_db / 20)


def spans_of(samples: np.ndarray, folder: Path) -> list[tuple[float, float]]:
    path = folder / "sound.wav"
    soundfile.write(path, np.clip(samples, -1, 1).T, RATE_HZ, subtype="PCM_16")
    return finder().find(SoundFile(str(path)))


def hidden(samples: np.ndarray, spans: list[tuple[float, float]], method: str) -> np.ndarray:
    sound = np.atleast_2d(samples)
    pieces = hide_sound([SoundPiece(0.0, sound, RATE_HZ, "stereo")], spans, method)
    return np.concatenate([piece.samples for piece in pieces], axis=1).reshape(samples.shape)


def is_inside(spans: list[tuple[float, float]], num_frames: int) -> np.ndarray:
    times = (np.arange(num_frames) + 0.5) * FRAME / RATE_HZ
    return np.any([(times >= begin) & (times < end) for begin, end in [*spans, (0.0, 0.0)]], axis=0)


@cache
def long_street(scene: str) -> np.ndarray:
    samples = np.concatenate([sum(clip_sound(plan)).mean(axis=0) for plan in plan_world(scene, 40, WORLD)])
    return samples / np.sqrt((samples**2).mean()) * 0.02


def street(scene: str, num_samples: int, number: int) -> np.ndarray:
    """Another stretch for each number."""
    return np.roll(long_street(scene), -11 * number * RATE_HZ)[:num_samples]


def estimate(rows: np.ndarray, figure, num_draws: int = 2000) -> Estimate:
    """A figure of rows, with what it is when rows are drawn with replacement."""
    picks = np.random.default_rng(0).integers(len(rows), size=(num_draws, len(rows)))
    return Estimate.of(figure(rows), np.array([figure(rows[pick]) for pick in picks]))


def find(folder: Path) -> None:
    for kind, voices in (("real", recordings()), ("synthetic", synthetic(folder))):
        seconds = sum(map(len, voices.values())) / RATE_HZ
        print(f"{kind} speech: {len(voices)} recordings, {seconds:.0f} s, each in {len(SCENES)} scenes")
        for snr_db in SNRS_DB:
            rows = []
            for number, speech in enumerate(voices.values()):
                speech = np.pad(speech, 3 * RATE_HZ)
                counts = np.zeros(4)
                for scene in SCENES:
                    sound = mixed(speech, street(scene, len(speech), number), snr_db)
                    spoken = is_spoken(speech)
                    inside = is_inside(spans_of(sound / max(1.0, np.abs(sound).max()), folder), len(spoken))
                    counts += (inside & spoken).sum(), spoken.sum(), (inside & ~spoken).sum(), (~spoken).sum()
                rows.append(counts)
            table = np.array(rows)
            found = estimate(table, lambda t: t[:, 0].sum() / t[:, 1].sum())
            other = estimate(table, lambda t: t[:, 2].sum() / t[:, 3].sum())
            print(f"  {snr_db:3} dB: hidden {found} of the speech, {other} of the other time", flush=True)
    for scene in (*SCENES, "crowd"):
        rows = []
        for plan in plan_world(scene, 40, WORLD):
            sound = sum(clip_sound(plan))
            count = sound.shape[1] // FRAME
            rows.append((is_inside(spans_of(sound, folder), count).sum(), count))
        share = estimate(np.array(rows), lambda t: t[:, 0].sum() / t[:, 1].sum())
        some = np.mean([inside > 0 for inside, _ in rows])
        print(f"no speech, {scene}: hidden {share} of the time, something in {some:.0%} of {len(rows)} videos")


def num_right(text: list[str], heard: list[str]) -> int:
    """Words in common, in order."""
    best = np.zeros((len(text) + 1, len(heard) + 1), int)
    for i, word in enumerate(text):
        for j, other in enumerate(heard):
            best[i + 1, j + 1] = best[i, j] + 1 if word == other else max(best[i, j + 1], best[i + 1, j])
    return int(best[-1, -1])


def words(folder: Path) -> None:
    from pocketsphinx import Decoder

    texts = {}
    for path in sorted(RECORDED.glob("*/*transcription")):
        for text, name in re.findall(r"<s> (.*?) +</s> \((.*)\)", path.read_text()):
            texts[path.parent / f"{name}.wav"] = text
    choice = Decoder(samprate=RATE_HZ, loglevel="FATAL")
    choice.add_jsgf_string("ten", f"#JSGF V1.0; grammar ten; public <one> = {' | '.join(texts.values())};")
    choice.activate_search("ten")

    def heard(decoder: Decoder, samples: np.ndarray) -> str:
        decoder.start_utt()
        decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        return decoder.hyp().hypstr if decoder.hyp() else ""

    right: dict[str, list[tuple[int, bool]]] = {"as recorded": [], "mute": [], "blur": []}
    for path, text in texts.items():
        samples = np.pad(at_16_khz(path), RATE_HZ // 3)
        whole = [(0.0, len(samples) / RATE_HZ)]
        for name, rows in right.items():
            sound = samples if name == "as recorded" else hidden(samples, whole, name)
            # What it hears depends on what it heard before: a new one each time.
            free = heard(Decoder(samprate=RATE_HZ, loglevel="FATAL"), sound)
            rows.append((num_right(text.split(), free.split()), heard(choice, sound) == text))
    total = sum(len(text.split()) for text in texts.values())
    for name, rows in right.items():
        count, told = np.sum(rows, axis=0)
        print(f"{name}: {count} of {total} words right; {told} of {len(texts)} sentences told apart")


def scores(folder: Path) -> None:
    from transformers import pipeline

    from avad_hf.detection.pipeline import DEMO_MODEL

    detect = pipeline("audio-visual-anomaly", model=str(DEMO_MODEL))
    rng, voices = np.random.default_rng(0), [x for x in recordings().values() if len(x) > 3 * RATE_HZ]
    rows = []
    for scene in KNOWN_SCENES:
        for plan in plan_world(scene, NUM_VIDEOS, WORLD):
            times, frames = zip(*clip_pictures(plan), strict=True)
            drawn = np.tanh(sum(clip_sound(plan)))
            mono = drawn.mean(axis=0)
            speech, at = np.zeros(drawn.shape[1]), int(rng.integers(RATE_HZ))
            voice = voices[rng.integers(len(voices))][: len(speech) - at]
            speech[at : at + len(voice)] = voice
            row = [float(plan.label != "normal")]
            spoken = [np.tanh(drawn + mixed(speech, mono, snr_db) - mono) for snr_db in OVER_DB]
            for sound in (drawn, *spoken):
                spans = spans_of(sound, folder)
                for version in (sound, *(hidden(sound, spans, method) for method in METHODS)):
                    media = {"frames": np.stack(frames), "times": np.array(times), "sampling_rate": RATE_HZ}
                    row.append(detect(media | {"waveform": version.astype(np.float32)})["score"])
                row.append(sum(end - begin for begin, end in spans) / plan.duration_s)
            rows.append(row)
    table = np.array(rows)

    def auc(column: int):
        return lambda t: roc_auc(t[:, 0], t[:, column])

    print(f"{len(table)} videos, {int(table[:, 0].sum())} with an anomaly")
    for number, name in enumerate(("as drawn", *(f"with speech at {snr_db} dB" for snr_db in OVER_DB))):
        first = 1 + 4 * number
        print(f"{name}: AUC {estimate(table, auc(first))}; hidden {table[:, first + 3].mean():.0%} of the time")
        for offset, method in enumerate(METHODS, 1):
            change = estimate(table, auc(first + offset)).minus(estimate(table, auc(first)))
            moved = np.abs(table[:, first + offset] - table[:, first]).mean()
            print(
                f"  {method}: AUC {estimate(table, auc(first + offset))}, change {change}; scores move by {moved:.3f}"
            )


def main(*parts: str) -> None:
    print(finder().origin)
    with tempfile.TemporaryDirectory() as folder:
        for part in parts or ("find", "words", "scores"):
            {"find": find, "words": words, "scores": scores}[part](Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
