"""Episodes at the junction: each is seen as one kind and heard as one, and only a pair that differs is abnormal.

In a normal video what is heard of every episode belongs to what is seen. In an anomalous one a single episode is seen
as one kind and heard as another. Kinds, times, paths and loudness are drawn alike in both, so that neither sense by
itself says anything of the label.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .sounds import PLACES, Source
from .stage import LAYOUTS, PAINTS, Actor, ClipPlan, moving, part_rng, path, traffic
from .tones import bump, clock, gate, motor, noise, strikes, thud, tone

# What comes by. An ordinary car is what there is to see of nothing special, and to hear.
KINDS = ("car", "braking", "emergency", "lorry")
PAIRS = tuple((seen, heard) for seen in KINDS for heard in KINDS if seen != heard)
MOST_EPISODES = 3
# How long an episode takes, and how much of a video's equal share of time stays free before and after it.
LENGTHS_S, PAUSE_S = (2.4, 3.0), 0.1


@dataclass(frozen=True)
class Episode:
    """Something that comes by on the near lane.

    Args:
        start_s: When it begins.
        whole_s: How long it takes.
        seen: One of `KINDS`.
        heard: One of `KINDS`; another one than `seen` is abnormal.
    """

    start_s: float
    whole_s: float
    seen: str
    heard: str


@dataclass(frozen=True)
class JunctionPlan(ClipPlan):
    """All that decides one clip of the junction.

    Args:
        episodes: In the order of time; they do not overlap.
    """

    episodes: tuple[Episode, ...]


def label_of(seen: str, heard: str) -> str:
    """The class of a video in which one episode is seen and heard like this, and the others match."""
    if seen == heard:
        return "normal"
    return "sound_without_sight" if seen == "car" else "sight_without_sound" if heard == "car" else "other_sound"


def draw_episodes(
    pair: tuple[str, str] | None, duration_s: float, chance: Callable[[str], float]
) -> tuple[tuple[Episode, ...], Episode | None]:
    """Decide what comes by in a video, and which of it does not match.

    Args:
        pair: How the abnormal episode is seen and heard; ``None`` for a normal video.
        duration_s: Length of the video.
        chance: Gives a number within 0 and 1 for a name.
    """
    count = 1 + int(MOST_EPISODES * chance("episodes"))
    odd, share_s, episodes = int(count * chance("odd")), duration_s / count, []
    for number in range(count):
        whole = LENGTHS_S[0] + (LENGTHS_S[1] - LENGTHS_S[0]) * chance(f"length {number}")
        spare = share_s - whole - 2 * PAUSE_S
        start = number * share_s + PAUSE_S + spare * chance(f"start {number}")
        kind = KINDS[int(len(KINDS) * chance(f"kind {number}"))]
        seen, heard = pair if pair is not None and number == odd else (kind, kind)
        episodes.append(Episode(round(start, 3), round(whole, 3), seen, heard))
    return tuple(episodes), None if pair is None else episodes[odd]


def _part(plan: JunctionPlan, first: int, number: int, kind: str) -> np.random.Generator:
    """Randomness of one kind in one episode: what is seen does not change how the same kind would sound."""
    return part_rng(plan, first + number * len(KINDS) + KINDS.index(kind))


def _vehicle(plan: JunctionPlan, number: int, kind: str, times: np.ndarray) -> Actor:
    """An episode's vehicle if it is of this kind: the one that is seen, or the one whose path the sound takes."""
    rng, layout, episode = _part(plan, 20, number, kind), LAYOUTS[plan.scene], plan.episodes[number]
    begin, lane, stop = layout.reach_m + 5, layout.lane_y(0), rng.uniform(-2, 3)
    points = [(0, -begin, lane), (1, begin, lane)]
    if kind == "braking":
        points[1:1] = [(0.3, stop, lane), (0.62, stop, lane)]
    x, y = path(times, episode.start_s, episode.whole_s, points, 0.15)
    details = {}
    if kind == "emergency":
        details = {"colours": ((240, 240, 236), (214, 30, 30)), "pattern": "checks", "blink": times % 0.3 < 0.15}
    elif kind == "lorry":
        paints = [((232, 232, 226), (52, 88, 160)), ((198, 186, 160), (170, 48, 40)), ((96, 120, 84), (40, 42, 48))]
        details = {"colours": paints[rng.integers(3)], "pattern": "bands"}
    else:
        share = (times - episode.start_s) / episode.whole_s
        details = {"colours": (PAINTS[rng.integers(len(PAINTS))], (40, 42, 48))}
        if kind == "braking":
            details["blink"] = (times % 0.4 < 0.2) & (share > 0.25) & (share < 0.65)
            details["smoke_m"] = 1.3 * np.sin(np.pi * np.clip((share - 0.2) / 0.5, 0, 1))
    body = {"emergency": "ambulance", "lorry": "truck"}.get(kind) or str(rng.choice(("car", "hatchback", "van")))
    return moving(body, plan.fps, x, y, rng, 0.0, **details)


def cast(plan: JunctionPlan) -> tuple[list[Actor], list[Actor]]:
    """The traffic of the far lane, which knows nothing of the episodes; and what is seen of each episode."""
    times = np.arange(plan.num_frames) / plan.fps
    others = traffic(part_rng(plan, 1), LAYOUTS[plan.scene], times, [], plan.fps, lanes=((1, -1),))
    return others, [_vehicle(plan, i, episode.seen, times) for i, episode in enumerate(plan.episodes)]


def _car(rng, seconds):
    u = clock(seconds) / seconds
    hum = tone(rng.uniform(45, 60) + 12 * bump(u, 0, 1), (0.6, 1, 0.5, 0.6, 0.25, 0.3, 0.15, 0.15))
    return (0.5 * hum + noise(rng, len(u), 250, rng.uniform(900, 1600))) * (0.4 + bump(u, 0.1, 0.9))


def _braking(rng, seconds):
    time = clock(seconds)
    u, pitch = time / seconds, np.full(len(time), rng.uniform(380, 450))
    squeal = tone(rng.uniform(900, 1200) - 150 * u, (1, 0.6, 0.5, 0.25)) + 0.5 * noise(rng, len(time), 900, 2600)
    horn = tone(pitch, (1, 0.8, 0.7, 0.5, 0.4)) + tone(pitch * 1.24, (1, 0.7, 0.6, 0.4))
    blown = (u > 0.3) & (u < 0.62) & (gate(time, 0.45, 0.75) > 0)
    return 1.4 * squeal * bump(u, 0.12, 0.36) + horn * blown + 0.3 * _car(rng, seconds)


def _emergency(rng, seconds):
    time = clock(seconds)
    low, step_s = rng.uniform(430, 520), rng.uniform(0.35, 0.5)
    return tone(np.where(time % (2 * step_s) < step_s, low, 1.34 * low), (1, 0.7, 0.6, 0.4, 0.3))


def _lorry(rng, seconds):
    time = clock(seconds)
    rumble = motor(rng, seconds, rng.uniform(24, 32) + 4 * time / seconds, (1, 1, 0.8, 0.8, 0.5, 0.5, 0.3), 0.4)
    hiss = strikes(rng, seconds, rng.uniform(0.1, 0.8, 3) * seconds, lambda: thud(rng, 2200, 6500, 0.12), 0.2)
    return rumble + 0.9 * noise(rng, len(time), 30, 140) + 1.5 * hiss


_MAKERS = dict(zip(KINDS, (_car, _braking, _emergency, _lorry), strict=True))


def episode_sources(plan: JunctionPlan) -> list[Source]:
    """What is heard of each episode, from where a vehicle of that kind would be, whether it is seen or not."""
    times, loudness, heard = np.arange(plan.num_frames) / plan.fps, part_rng(plan, 5), []
    for number, episode in enumerate(plan.episodes):
        rng, way = _part(plan, 40, number, episode.heard), _vehicle(plan, number, episode.heard, times)
        signal = _MAKERS[episode.heard](rng, episode.whole_s)
        time = clock(episode.whole_s)
        signal *= np.clip(np.minimum(time, episode.whole_s - time) / 0.2, 0, 1) / np.sqrt(np.mean(signal**2))
        loud = np.exp(loudness.uniform(*np.log(PLACES[plan.scene].event)))
        heard.append(Source(signal * loud, episode.start_s, way.x, way.y))
    return heard
