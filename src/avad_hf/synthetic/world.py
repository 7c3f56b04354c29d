"""A synthetic audio-visual world: streets with the classes of MAVAD, a crowd with those of SHADE, and a junction.

Every picture is drawn and every sound computed: nothing in it is real, and results on it say nothing of real streets.
It serves tests, tutorials and comparisons without a download. A scene decides how much of an anomaly there is to see
and to hear: at the `crossing` both, in the `underpass` mostly sound, from the `overlook` mostly picture, and in the
`crowd` each tells a part. On the `avenue` sight matters: what is abnormal is near, slow and patterned, and sound says
little. At the `junction` neither sense suffices: what is abnormal is that what is seen and what is heard do not belong
together.
"""

import gc
import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from avad_hf.corpora.classes import JUNCTION_CLASSES, MAVAD_CLASSES, SHADE_CLASSES, is_normal
from avad_hf.disks import DiskError, writing
from avad_hf.files import written_whole
from avad_hf.media.encode import write_video

from . import episodes, sounds
from .episodes import PAIRS, JunctionPlan, draw_episodes, label_of
from .pictures import Painter
from .stage import HEIGHT, LAYOUTS, WIDTH, Actor, ClipPlan, cast, mood, part_rng

# Each scene with its classes.
TABLES = {
    "crossing": MAVAD_CLASSES,
    "underpass": MAVAD_CLASSES,
    "overlook": MAVAD_CLASSES,
    "crowd": SHADE_CLASSES,
    "avenue": MAVAD_CLASSES,
    "junction": JUNCTION_CLASSES,
}
SCENES = {scene: tuple(table.names) for scene, table in TABLES.items()}
# More videos than this of one seed would take the seeds of the next one.
MAX_VIDEOS = 1_000_000
# Where the seeds of a scene's plans begin, and how far apart those of two worlds are. The first four scenes take
# turns, as they did when there were no others; each later one has numbers of its own, which theirs do not reach.
PLAN_SEEDS = {
    "crossing": (0, 4 * MAX_VIDEOS),
    "underpass": (MAX_VIDEOS, 4 * MAX_VIDEOS),
    "overlook": (2 * MAX_VIDEOS, 4 * MAX_VIDEOS),
    "crowd": (3 * MAX_VIDEOS, 4 * MAX_VIDEOS),
    "avenue": (1 << 64, MAX_VIDEOS),
    "junction": (1 << 65, MAX_VIDEOS),
}
# Length of a scene's videos (s).
DURATIONS_S = dict.fromkeys(SCENES, (4, 8)) | {"avenue": (5, 8), "junction": (9.6, 12)}
# How fast anomalies pass through the picture (m/s), and how long the others take (s).
SPEEDS_MPS = {"bicycle": (4.5, 8.0), "bus": (7.0, 11.0), "scooter": (8.0, 13.0), "horse": (4.0, 7.0)}
SLOWNESS = {"avenue": 0.5}
LENGTHS_S = {
    "pedestrians": (5.0, 8.0),
    "pedestrians_crossing": (4.0, 6.0),
    "exit_side_street": (4.0, 6.0),
    "heavy_goods_vehicle": (5.0, 7.0),
    "obstruction": (5.0, 8.0),
    "u_turn": (4.5, 6.5),
}


def _chance(*key) -> float:
    """A number within 0 and 1 that a key decides: the same everywhere, unlike those of random generators."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:6], "big") / 2**48


def _contents(scene: str, num_videos: int, seed: int) -> list[Any]:
    """The label of each video; of an anomalous one at the junction the pair of what is seen and what is heard."""
    classes = SCENES[scene] if scene != "junction" else ("normal", *PAIRS)
    if scene == "crowd":
        labels = sorted(classes, key=lambda name: _chance(seed, scene, "order", name))
        labels = [labels[i % len(labels)] for i in range(num_videos)]
    else:
        anomalies = sorted(classes[1:], key=lambda name: _chance(seed, scene, "order", name))
        count = max(num_videos // 2, min(len(anomalies), num_videos - 1))
        labels = [anomalies[i % len(anomalies)] for i in range(count)] + ["normal"] * (num_videos - count)
    order = sorted(range(num_videos), key=lambda i: _chance(seed, scene, "place", i))
    return [labels[i] for i in order]


def plan_world(scene: str, num_videos: int = 200, seed: int = 0) -> list[ClipPlan]:
    """Decide what each clip shows; the same on every machine.

    About half of a street's videos are normal, and the others even over the anomalies, at least one of each where
    there are enough videos. The crowd's are even over its classes; the junction's over the pairs of what is seen and
    what is heard that do not belong together, and these have three labels. Length, frame rate, weather and hour do
    not depend on the label.

    Args:
        scene: A key of `SCENES`.
        num_videos: At least 1.
        seed: Different seeds share no clip.

    Returns:
        One plan a clip, in an order that says nothing of the labels.

    Raises:
        ValueError: If there is no such scene, or a number is out of range.
    """
    if scene not in SCENES:
        raise ValueError(f"Unknown scene {scene!r}. Choose one of {', '.join(SCENES)}.")
    if not 1 <= num_videos <= MAX_VIDEOS:
        raise ValueError(f"num_videos must be within 1 and {MAX_VIDEOS}, got {num_videos}.")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    plans = []
    first_seed, apart = PLAN_SEEDS[scene]
    for index, content in enumerate(_contents(scene, num_videos, seed)):

        def between(name, low, high, index=index):
            return low + (high - low) * _chance(seed, scene, index, name)

        fps = 25 if between("fps", 0, 1) < 0.5 else 30
        duration = round(between("duration", *DURATIONS_S[scene]) * fps) / fps
        hour = int(between("hour", 0, 24))
        weather = between("weather", 0, 1)
        start = end = whole = None
        make, label, details = ClipPlan, content, {}
        if scene == "junction":
            pair = None if content == "normal" else content
            label = "normal" if pair is None else label_of(*pair)
            drawn, odd = draw_episodes(pair, duration, lambda name, between=between: between(name, 0, 1))
            make, details = JunctionPlan, {"episodes": drawn}
            if odd is not None:
                start, whole = odd.start_s, odd.whole_s
                end = start + whole
        elif not is_normal(label):
            start = round(between("start", 0.5, 0.45 * duration), 3)
            if label in SPEEDS_MPS:
                whole = 2 * LAYOUTS[scene].enter_m / between("speed", *SPEEDS_MPS[label])
                whole /= SLOWNESS.get(scene, 1)
            else:
                whole = between("length", *LENGTHS_S.get(label, (3.0, 5.5)))
            whole = round(whole, 3)
            end = min(start + whole, duration)
        plans.append(
            make(
                stem=f"{scene}_{index:04d}",
                scene=scene,
                label=label,
                seed=first_seed + seed * apart + index,
                fps=fps,
                duration_s=duration,
                event_start_s=start,
                event_end_s=end,
                event_whole_s=whole,
                hour=hour,
                weather="clear" if weather < 0.5 else "rain" if weather < 0.75 else "fog",
                dark=hour < 6 or hour > 19 or between("gloom", 0, 1) < 0.12,
                **details,
            )
        )
    return plans


def _happens(plan: ClipPlan, with_event: bool = True) -> tuple[list[Actor], list[Actor]]:
    """Everyone else, and who takes part in the anomaly; at the junction in any of its episodes."""
    if not isinstance(plan, JunctionPlan):
        return cast(plan, with_event)
    others, vehicles = episodes.cast(plan)
    return others, [v for v, e in zip(vehicles, plan.episodes, strict=True) if with_event or e.seen == e.heard]


def clip_pictures(plan: ClipPlan, with_event: bool = True) -> Iterator[tuple[float, np.ndarray]]:
    """Paint a clip: time in seconds and RGB of shape `(90, 160, 3)`, uint8, of each frame."""
    others, event = _happens(plan, with_event)
    painter = Painter(plan.scene, plan.hour, plan.weather, plan.dark, part_rng(plan, 6))
    for index in range(plan.num_frames):
        yield index / plan.fps, painter.paint(index, index / plan.fps, [*others, *event])


def clip_sound(plan: ClipPlan) -> tuple[np.ndarray, np.ndarray]:
    """Sound of everything else and of the anomaly alone, each of shape `(2, samples)`, at `sounds.RATE_HZ`.

    The recorder's gain is such that their sum is as loud as was drawn at random: loudness says nothing of the label.
    """
    place, seconds = sounds.PLACES[plan.scene], plan.duration_s
    (others, event), rng = _happens(plan), part_rng(plan, 4)
    still = np.zeros(plan.num_frames)
    sources, anomaly = [], []
    if plan.scene == "crowd":
        voices = sounds.crowd(mood(plan), rng, seconds) * rng.uniform(0.3, 0.8)
        sources.append(sounds.Source(voices, 0.0, still, still + 15))
    for number, car in enumerate(others if plan.scene != "crowd" else ()):
        speed = np.abs(np.gradient(car.x) * plan.fps)
        sources.append(sounds.Source(sounds.car(part_rng(plan, 100 + number), speed, seconds), 0.0, car.x, car.y))
    if isinstance(plan, JunctionPlan):
        for episode, source in zip(plan.episodes, episodes.episode_sources(plan), strict=True):
            (sources if episode.seen == episode.heard else anomaly).append(source)
    # No other horns and sirens where they would make a lie of the label.
    for _ in range(rng.poisson(1.5) if plan.scene != "junction" else 0):
        x, y = still + rng.uniform(-15, 15), still + rng.uniform(10, 40)
        sources.append(sounds.Source(sounds.harmless(rng) * rng.uniform(0.2, 1.2), rng.uniform(0, seconds - 1), x, y))
    if plan.event_start_s is not None and plan.scene != "junction":
        loud = np.exp(part_rng(plan, 5).uniform(*np.log(place.event)))
        noise = sounds.event(plan.label, part_rng(plan, 3), plan.event_whole_s) * loud
        x, y = (event[0].x, event[0].y) if event else (still, still + 15)
        anomaly.append(sounds.Source(noise, plan.event_start_s, x, y))
    times = np.arange(plan.num_frames) / plan.fps
    parts = [sounds.heard(some, times, seconds, place, part_rng(plan, 7)) for some in (sources, anomaly)]
    parts[0] += sounds.street_noise(rng, seconds, place, plan.weather)
    level = 10 ** (part_rng(plan, 8).uniform(-30, -20) / 20)
    gain = level / np.sqrt(np.mean((parts[0] + parts[1]) ** 2))
    return parts[0] * gain, parts[1] * gain


def render_clip(plan: ClipPlan, path: str | os.PathLike) -> None:
    """Write one clip as MP4 (H.264 and AAC), whole or not at all."""
    background, event = clip_sound(plan)
    # Peaks are bent, not cut.
    samples = np.tanh(background + event)
    size, sound = (WIDTH, HEIGHT), (samples, sounds.RATE_HZ)
    write_video(path, clip_pictures(plan), size, plan.fps, samples=sound, repeatable=True, is_synthetic=True)


def _render_share(plans: Sequence[ClipPlan], directory: Path, report: Connection) -> None:
    """Render clips in a process of its own, and report each one's name, with the error that ended the work if any."""
    # Ctrl-C reaches all processes at once. The parent alone acts on it and ends the others, which finish their clip:
    # an exception raised by a signal would be lost if it came inside a callback of FFmpeg's.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ended = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    for plan in plans:
        if ended.is_set():
            return
        path = directory / f"{plan.stem}.mp4"
        try:
            with writing(path, "The clip"):
                render_clip(plan, path)
        except Exception as error:
            report.send((plan.stem, error if isinstance(error, DiskError) else str(error)))
            return
        report.send((plan.stem, None))


def _end_with_parent() -> None:
    """A parent that is killed ends nobody, and its next run would find these processes at work in its folder."""
    multiprocessing.parent_process().join()
    os._exit(1)


def render_world(
    directory: str | os.PathLike,
    scene: str,
    num_videos: int = 200,
    seed: int = 0,
    num_workers: int | None = None,
    progress: bool = True,
) -> list[ClipPlan]:
    """Render a scene's clips as `<directory>/<stem>.mp4`, in several processes.

    Files that are there already are kept, so that a run that was stopped goes on where it was. Use a directory of its
    own for each seed: names do not tell seeds apart.

    Args:
        directory: Made if it is not there.
        scene: A key of `SCENES`.
        num_videos: At least 1.
        seed: See `plan_world`.
        num_workers: Processes; one a core by default.
        progress: Whether to show a bar.

    Returns:
        One plan a clip, also of those that were there.

    Raises:
        ValueError: If there is no such scene, or a number is out of range.
        RuntimeError: If a clip cannot be rendered; it is named.
        OSError: If one cannot be written, because the disk is full for example.
    """
    plans = plan_world(scene, num_videos, seed)
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers must be 1 or more, or None for one a core, got {num_workers}.")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    missing = [plan for plan in plans if not (directory / f"{plan.stem}.mp4").exists()]
    if not missing:
        return plans
    # A forked process needs no guard around the caller's main program; elsewhere than on Linux forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    workers = min(num_workers or os.cpu_count() or 1, len(missing))
    readers, processes = [], []
    try:
        # What the caller left to collect, a fork must not: an engine's destructor would wait for threads it has not.
        gc.freeze()
        try:
            for number in range(workers):
                reader, writer = context.Pipe(duplex=False)
                process = context.Process(target=_render_share, args=(missing[number::workers], directory, writer))
                process.start()
                writer.close()  # the other end is the child's alone, and ends with it
                readers.append(reader)
                processes.append(process)
        finally:
            gc.unfreeze()
        # No word on a bar that is wanted: TQDM_DISABLE, the environment variable, counts for it.
        hidden = {} if progress else {"disable": True}
        with tqdm(total=len(missing), desc=scene, unit="clip", **hidden) as bar:
            while readers:
                for reader in wait(readers):
                    try:
                        stem, error = reader.recv()
                    except EOFError:
                        readers.remove(reader)
                        continue
                    if isinstance(error, DiskError):
                        raise error
                    if error is not None:
                        raise RuntimeError(f"Rendering {stem} failed: {error}")
                    bar.update()
        for process in processes:
            process.join()
            if process.exitcode:
                raise RuntimeError(
                    f"A process that rendered {scene} was ended from outside (code {process.exitcode}), perhaps for "
                    "want of memory. Run it again: clips that are there are kept."
                )
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    return plans


def gallery(plans: Sequence[ClipPlan], path: str | os.PathLike, columns: int = 4) -> None:
    """Draw a contact sheet as PNG: for each class one clip's frames, and below them its spectrum over time.

    Args:
        plans: Videos of one scene; the first of each class is shown.
        path: Name of the PNG.
        columns: Frames a class, spread over the anomaly, or over a normal video.

    Raises:
        ValueError: If there are no plans.
    """
    if not plans:
        raise ValueError("There are no plans to show. Make some with plan_world.")
    first = {plan.label: plan for plan in reversed(plans)}
    rows = [first[label] for label in SCENES[plans[0].scene] if label in first]
    wide, tall, strip, margin = 2 * WIDTH, 2 * HEIGHT, 60, 22
    sheet = Image.new("RGB", (columns * wide, len(rows) * (tall + strip + margin)), "white")
    for row, plan in enumerate(rows):
        top = row * (tall + strip + margin)
        begin, end = plan.event_start_s or 0.0, plan.event_end_s or plan.duration_s
        chosen = np.linspace(begin, end, columns + 2)[1:-1] * plan.fps
        pictures = [picture for _, picture in islice(clip_pictures(plan), int(chosen.max()) + 1)]
        for column, index in enumerate(chosen.astype(int)):
            sheet.paste(Image.fromarray(pictures[index]).resize((wide, tall)), (column * wide, top + margin))
        level = sounds.log_spectrum(sum(clip_sound(plan)).mean(axis=0))
        quiet, loud = np.percentile(level, (10, 99.5))
        shade = np.clip((level - quiet) / (loud - quiet), 0, 1)[::-1]
        picture = Image.fromarray((255 * (1 - shade)).astype(np.uint8)).resize((columns * wide, strip))
        sheet.paste(picture, (0, top + margin + tall))
        when = f", event {begin:.1f} to {end:.1f} of {plan.duration_s:.1f} s" if plan.event_start_s else ""
        text = f"{plan.label}: {plan.stem}, {plan.hour} h, {plan.weather}{', dark' if plan.dark else ''}{when}"
        ImageDraw.Draw(sheet).text((6, top + 5), text, fill="black")
    with written_whole(path) as partial:
        sheet.save(partial, format="PNG")
