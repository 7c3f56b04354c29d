"""What happens in the synthetic world: where its streets are, who moves where, and what is heard of it."""

import math
from dataclasses import dataclass

import numpy as np

from avad_hf.corpora.classes import is_normal

from .sounds import shot_times

WIDTH, HEIGHT = 160, 90
# Drawn this many times larger and averaged, since Pillow's shapes have hard edges.
SUPER = 3
PAINTS = ((188, 32, 36), (32, 64, 150), (225, 225, 228), (40, 42, 48), (150, 155, 160), (24, 104, 68), (212, 176, 60))
CLOTHES = ((170, 48, 52), (52, 88, 160), (60, 60, 66), (205, 200, 190), (88, 128, 72), (214, 168, 72), (120, 72, 128))


@dataclass(frozen=True)
class Camera:
    """A pinhole above the origin that looks along +y; x is to the right and z up, in metres.

    Args:
        height_m: Above the ground.
        pitch: Downwards, in radians.
        focal_px: Focal length in pixels of the finished picture.
    """

    height_m: float
    pitch: float
    focal_px: float

    def project(self, points) -> tuple[np.ndarray, np.ndarray]:
        """Pixels on the enlarged canvas, of shape `(..., 2)`, and pixels a metre there, for points `(..., 3)`."""
        points = np.asarray(points, dtype=float)
        x, y, up = points[..., 0], points[..., 1], points[..., 2] - self.height_m
        cos, sin = math.cos(self.pitch), math.sin(self.pitch)
        scale = SUPER * self.focal_px / np.maximum(y * cos - up * sin, 0.5)
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = SUPER * WIDTH / 2 + x * scale
        pixels[..., 1] = SUPER * HEIGHT / 2 - (y * sin + up * cos) * scale
        return pixels, scale


@dataclass(frozen=True)
class Layout:
    """Where things are in a scene, in metres.

    Args:
        camera: That sees it.
        road_y: Near kerb of a road of two lanes that runs along x.
        facade_y: Front of the buildings behind it.
        reach_m: Distance from the middle at which things on the road are out of the picture.
        side_x: Middle of the side street.
        zebra_x: Middle of the pedestrian crossing.
        enter_m: Distance from the middle at which those who take part in an anomaly come and go; by default 3 m more
            than `reach_m`.
        quiet: How many times as long as elsewhere no car comes.
        bold: Whether those who take part in an anomaly bear patterns, and people and animals among them are larger.
    """

    camera: Camera
    road_y: float
    facade_y: float
    reach_m: float
    side_x: float = 6.0
    zebra_x: float = -4.2
    enter_m: float | None = None
    quiet: float = 1.0
    bold: bool = False

    def __post_init__(self):
        if self.enter_m is None:
            object.__setattr__(self, "enter_m", self.reach_m + 3)

    def lane_y(self, lane: int) -> float:
        """Middle of the near (0) or far (1) lane."""
        return self.road_y + 1.75 + 3.5 * lane


LAYOUTS = {
    "crossing": Layout(Camera(7.0, 0.36, 100.0), road_y=12.0, facade_y=22.0, reach_m=16.0),
    "underpass": Layout(Camera(4.6, 0.24, 95.0), road_y=11.0, facade_y=20.0, reach_m=15.5, side_x=4.5),
    "overlook": Layout(Camera(20.0, 0.53, 195.0), road_y=27.0, facade_y=37.0, reach_m=17.0, side_x=7.5),
    "crowd": Layout(Camera(10.0, 0.45, 112.0), road_y=30.0, facade_y=32.0, reach_m=15.0),
    # The next two look through a long lens: what passes fills a good part of the picture on either lane.
    "avenue": Layout(
        Camera(7.0, 0.275, 340.0),
        road_y=18.0,
        facade_y=27.0,
        reach_m=9.5,
        side_x=3.0,
        zebra_x=-1.5,
        enter_m=8.0,
        quiet=3.0,
        bold=True,
    ),
    "junction": Layout(Camera(7.0, 0.31, 240.0), road_y=18.0, facade_y=28.0, reach_m=8.0, side_x=5.0, quiet=3.0),
}
# What a vehicle or a coat may bear on its sides, in its second colour.
PATTERNS = ("stripes", "bands", "checks")
# People and animals are drawn this many times as large as life, to be seen; the second is that of bold ones.
FIGURE_SIZE, BOLD_FIGURE_SIZE = 1.2, 1.6


@dataclass
class Actor:
    """One thing that moves; its arrays have one value a frame, and NaN in `x` where it is not there.

    Args:
        kind: A key of `VEHICLES`, or person, bicycle, scooter, horse.
        x: To the right, in metres.
        y: Away from the camera, in metres.
        heading: Radians, 0 along +x.
        gait: Phase of legs and wheels in radians.
        colours: Main and second colour.
        pose: Pose of a person, one name a frame.
        blink: Whether hazard lights, an indicator, a beacon or a muzzle flash is lit, one value a frame.
        pattern: One of `PATTERNS`, if it bears one.
        size: How many times as large as life a person or an animal is drawn.
        smoke_m: Radius of the cloud behind tyres that do not roll, in metres, one value a frame.
    """

    kind: str
    x: np.ndarray
    y: np.ndarray
    heading: np.ndarray
    gait: np.ndarray
    colours: tuple
    pose: list | None = None
    blink: np.ndarray | None = None
    pattern: str | None = None
    size: float = FIGURE_SIZE
    smoke_m: np.ndarray | None = None


@dataclass(frozen=True)
class ClipPlan:
    """All that decides one clip.

    Args:
        stem: Stem of the file's name; it says nothing of the label.
        scene: A key of `SCENES`.
        label: One of the scene's classes.
        seed: Seed of what is drawn at random; no other plan has it.
        fps: Frames a second, 25 or 30.
        duration_s: Length of picture and sound.
        event_start_s: When the anomaly begins; ``None`` for a normal video.
        event_end_s: When it is over, or the video is; ``None`` for a normal video.
        event_whole_s: How long it would take if the video went on; ``None`` for a normal video.
        hour: Hour of the day, 0 to 23.
        weather: clear, rain or fog.
        dark: Whether there is little light: at night, and on some gloomy days.
    """

    stem: str
    scene: str
    label: str
    seed: int
    fps: int
    duration_s: float
    event_start_s: float | None
    event_end_s: float | None
    event_whole_s: float | None
    hour: int
    weather: str
    dark: bool

    @property
    def num_frames(self) -> int:
        """Number of pictures."""
        return round(self.duration_s * self.fps)


def part_rng(plan: ClipPlan, part: int) -> np.random.Generator:
    """Randomness of one part of a clip: what one part draws does not change another."""
    return np.random.Generator(np.random.PCG64([plan.seed, part]))


def mood(plan: ClipPlan) -> str:
    """Whether a crowd strolls (normal1) or stands together and chants (normal2), before anything happens."""
    return plan.label if is_normal(plan.label) else str(part_rng(plan, 9).choice(("normal1", "normal2")))


def moving(kind, fps: int, x, y, rng, heading=None, **details) -> Actor:
    """An actor on its way; it looks where it goes, or where `heading` says."""
    speed_x, speed_y = (np.nan_to_num(np.gradient(v) * fps) for v in (x, y))
    speed = np.hypot(speed_x, speed_y)
    if heading is None:
        # Who stands looks where it went last.
        going = np.maximum.accumulate(np.where(speed > 0.3, np.arange(len(x)), -1))
        first = int(np.argmax(speed > 0.3))
        heading = np.arctan2(speed_y, speed_x)[np.where(going < 0, first, going)]
    stride = {"person": 1.5, "horse": 2.6, "bicycle": 4.0}.get(kind, 2.0)
    gait = np.cumsum(speed) / fps * 2 * np.pi / stride + rng.uniform(0, 6)
    palette = CLOTHES if kind in ("person", "bicycle", "scooter", "horse") else PAINTS
    chosen = rng.choice(len(palette), 2)
    colours = details.pop("colours", (palette[chosen[0]], palette[chosen[1]]))
    return Actor(kind, np.asarray(x), np.asarray(y), np.broadcast_to(heading, len(x)), gait, colours, **details)


def path(times, start_s: float, whole_s: float, points, smooth_s: float = 0.0):
    """Positions along points (share of the time, x, y), with rounded corners; NaN before the start and at the end."""
    u = (times - start_s) / whole_s
    shares, xs, ys = np.array(points, dtype=float).T
    half = smooth_s / 2 / whole_s
    offsets = np.linspace(-half, half, 9) if half else np.zeros(1)
    inside = (u >= 0) & (u <= 1)
    return [
        np.where(inside, np.mean([np.interp(u + o, shares, v) for o in offsets], axis=0), np.nan) for v in (xs, ys)
    ]


def traffic(
    rng, layout: Layout, times: np.ndarray, obstacles: list[Actor], fps: int, lanes=((0, 1), (1, -1))
) -> list[Actor]:
    """Ordinary cars on lanes, each with its way; they keep their distance to each other and to what stands there."""
    # They are heard before they are seen, and on their way when the video begins.
    cars, early, begin = [], 8 * fps, layout.reach_m + 14
    pause = rng.uniform(2.0, 7.0) * layout.quiet
    for lane, way in lanes:
        lane_y, leader = layout.lane_y(lane), np.full(early + len(times), np.inf)
        starts = (np.cumsum(rng.exponential(pause, 24)) * fps).astype(int)
        speeds, kinds = rng.uniform(7, 13, 24), rng.choice(("car", "car", "hatchback", "van"), 24)
        for start, speed, kind in zip(starts, speeds, kinds, strict=True):
            if start >= len(leader) or leader[start] + begin < 9:
                continue
            where, pace, track = -begin, speed, np.full(len(leader), np.nan)
            for i in range(start, len(leader)):
                gap = leader[i] - where - 6.5
                for thing in obstacles if i >= early else ():
                    at = way * thing.x[i - early] - (4.5 if thing.kind in ("bus", "truck") else 0.0)
                    if abs(thing.y[i - early] - lane_y) < 1.6 and at > where:
                        gap = min(gap, at - where - 6.5)
                pace += float(np.clip(min(speed, max(0.0, gap)) - pace, -9 / fps, 3 / fps))
                where += max(0.0, pace) / fps
                if where > begin:
                    break
                track[i] = where
            leader = np.where(np.isnan(track), np.inf, track)
            if np.count_nonzero(~np.isnan(track[early:])) < 3:  # too short to have a speed
                continue
            heading = 0.0 if way > 0 else math.pi
            cars.append(moving(str(kind), fps, way * track[early:], np.full(len(times), lane_y), rng, heading))
    return cars


def _street_event(plan: ClipPlan, layout: Layout, times: np.ndarray, rng) -> list[Actor]:
    """Who takes part in the anomaly; the first one is where its sound comes from."""
    label, fps, begin = plan.label, plan.fps, layout.enter_m
    near, far = layout.lane_y(0), layout.lane_y(1)
    way = int(rng.choice((-1, 1)))
    lane = near if way > 0 else far
    kerb = layout.road_y + 0.6 if way > 0 else layout.road_y + 6.4
    hazard = (times % 0.7 < 0.35) & (times > plan.event_start_s + 1)

    def mover(kind, points, smooth_s=0.0, **details):
        along = path(times, plan.event_start_s, plan.event_whole_s, points, smooth_s)
        return moving(kind, fps, *along, rng, **details)

    if label in ("bicycle", "scooter"):
        return [mover(label, [(0, -way * begin, kerb), (1, way * begin, kerb)])]
    if label == "horse":
        coat = [(104, 66, 40), (58, 44, 36), (168, 150, 128)][rng.integers(3)]
        points = [(0, -way * begin, kerb), (1, way * begin, kerb)]
        return [mover("horse", points, colours=(coat, CLOTHES[rng.integers(len(CLOTHES))]))]
    if label == "bus":
        stop = rng.uniform(-4, 4)
        colours = [((206, 48, 40), (60, 60, 60)), ((232, 196, 60), (60, 60, 60)), ((52, 130, 90), (60, 60, 60))]
        points = [(0, -way * (begin + 3), lane), (0.42, stop, lane), (0.58, stop + way, lane)]
        return [mover("bus", [*points, (1, way * (begin + 3), lane)], 0.8, colours=colours[rng.integers(3)])]
    if label == "heavy_goods_vehicle":
        stop, heading = rng.uniform(-2, 4), 0.0 if way > 0 else math.pi
        colours = [((232, 232, 226), (52, 88, 160)), ((198, 186, 160), (170, 48, 40))][rng.integers(2)]
        points = [(0, -way * (begin + 4), lane), (0.45, way * stop, lane), (0.52, way * stop, lane)]
        return [mover("truck", [*points, (1, way * (stop - 3), lane)], 0.6, heading=heading, colours=colours)]
    if label == "obstruction":
        stop, heading = rng.uniform(-2, 5), 0.0 if way > 0 else math.pi
        points = [(0, -way * begin, lane), (0.3, way * stop, lane), (1, way * stop, lane)]
        return [mover("car", points, 0.8, heading=heading, blink=hazard)]
    if label == "u_turn":
        turn, from_y, to_y = rng.uniform(-3, 5), *((near - 0.4, far) if way > 0 else (far + 0.4, near))
        points = [(0, -way * begin, from_y), (0.4, way * turn, from_y), (0.52, way * (turn + 3), (from_y + to_y) / 2)]
        return [mover("car", [*points, (0.64, way * turn, to_y), (1, -way * begin, to_y)], 0.9)]
    if label == "exit_side_street":
        side, way_out, deep = layout.side_x, lane, layout.facade_y + 16
        points = [(0, side, deep), (0.3, side, layout.road_y + 8), (0.5, side, layout.road_y + 8)]
        points += [(0.68, side + way * 2.5, way_out), (1, way * (begin + 4), way_out)]
        return [mover("car", points, 0.7, blink=(times % 0.72 < 0.36))]
    people = []
    for _ in range(rng.integers(2, 5) if label == "pedestrians" else rng.integers(1, 4)):
        if label == "pedestrians":
            side_y = rng.choice((layout.road_y - rng.uniform(0.8, 2.0), layout.road_y + rng.uniform(7.8, 9.2)))
            turn, late = rng.choice((-1, 1)), rng.uniform(0, 2.0)
            points = [(0, -turn * (layout.reach_m - 3 + late), side_y), (1, turn * rng.uniform(-4, 4), side_y)]
        else:
            x, drift = layout.zebra_x + rng.uniform(-1.1, 1.1), rng.uniform(-0.6, 0.6)
            ends = (layout.road_y - rng.uniform(2.0, 3.5), layout.road_y + rng.uniform(8.5, 9.5))[::way]
            points = [(0, x, ends[0]), (1, x + drift, ends[1])]
        people.append(mover("person", points))
    return people


def _crowd_cast(plan: ClipPlan, times: np.ndarray, with_event: bool) -> tuple[list[Actor], list[Actor]]:
    """The people of the square, and who takes part in the event; the first of them is where its sound comes from."""
    rng, act = part_rng(plan, 1), part_rng(plan, 2)
    count, fps, frames = int(rng.integers(14, 24)), plan.fps, len(times)
    kind = mood(plan)
    place = rng.uniform((-13, 9), (13, 27), (count, 2))
    angle, pace = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.7, 1.5, count) * (kind == "normal1")
    speed = np.broadcast_to(
        np.stack([np.cos(angle), 0.5 * np.sin(angle)], 1) * pace[:, None], (frames, count, 2)
    ).copy()
    poses = np.full((frames, count), "walk" if kind == "normal1" else "stand", dtype=object)
    if kind == "normal2":
        poses[:, rng.random(count) < 0.7] = "cheer"
        place = place * (0.5, 0.6) + (rng.uniform(-4, 4), 6)
    extras, spot = [], np.array([act.uniform(-5, 5), act.uniform(13, 19)])
    if with_event:
        on = (times >= plan.event_start_s) & (times < plan.event_end_s)
        u = (times - plan.event_start_s) / plan.event_whole_s
        flee = place - spot
        flee = flee / np.maximum(np.hypot(*flee.T), 0.5)[:, None] * act.uniform(3.0, 4.5, count)[:, None]
        afraid = act.random(count) < {"shoot": 0.75, "scatter": 0.95, "knockdown": 0.5}.get(plan.label, 0.0)
        from_start = np.broadcast_to(on[:, None], (frames, count))
        if plan.label == "run":
            together = act.uniform(-0.5, 0.5) + act.choice((0, np.pi))
            flee = np.stack([np.cos(together), np.sin(together)]) * act.uniform(3.0, 4.5, (count, 1))
            afraid[:] = act.random(count) < 0.9
        if plan.label == "knockdown":
            from_start = from_start & (u > 0.35)[:, None]
        running = from_start & afraid
        speed = np.where(running[..., None], flee, speed)
        poses[running] = "run"
        extras = _crowd_event(plan, times, spot, u, on, act)
    where = place + np.cumsum(speed, axis=0) / fps
    where[..., 0] = (where[..., 0] + 18) % 36 - 18  # who leaves on one side, out of the picture, comes on the other
    where[..., 1] = np.clip(where[..., 1], 7.5, 30)
    if extras and plan.label == "knockdown":
        hit = (np.abs(where - np.stack([extras[0].x, extras[0].y], 1)[:, None]) < (2.2, 1.3)).all(axis=2)
        down = np.maximum.accumulate(hit, axis=0)
        first = np.argmax(down, axis=0)
        where = np.where(down[..., None], where[first, np.arange(count)], where)
        poses[down] = "fall"
    people = [moving("person", fps, where[:, k, 0], where[:, k, 1], rng, pose=list(poses[:, k])) for k in range(count)]
    if kind == "normal2":
        for person in people:
            person.gait = person.gait + times * 9
    return people, extras


def _crowd_event(plan: ClipPlan, times, spot, u, on, rng) -> list[Actor]:
    """Those who do more than the crowd does."""
    label, fps, still = plan.label, plan.fps, np.zeros(len(times))

    def person(x, y, pose, **details):
        x = np.where(on, x, np.nan)
        return moving("person", fps, x, y + still, rng, pose=[pose] * len(times), **details)

    if label == "chase":
        turn = rng.choice((-1, 1))
        runs = []
        for lag, colours in ((0.0, None), (1.6, ((24, 32, 74), (24, 28, 50))), (2.5, ((24, 32, 74), (24, 28, 50)))):
            along = -13 + 26 * np.clip(u, 0, 1) - lag
            details = {"colours": colours} if colours else {}
            runs.append(person(turn * along, spot[1] + 2.5 * np.sin(0.35 * along), "run", **details))
        return runs
    if label == "fight":
        fighters = []
        for side in (-1, 1, 1)[: rng.integers(2, 4)]:
            shove = 0.35 * np.sin(9 * times + side) + 0.2 * np.sin(23 * times)
            x, y = spot[0] + side * (0.6 + 0.2 * shove), spot[1] + 0.4 * shove + rng.uniform(-0.6, 0.6)
            fighter = person(x, y, "punch", heading=0.0 if side < 0 else math.pi)
            fighter.gait = times * rng.uniform(13, 17)
            fighters.append(fighter)
        return fighters
    if label == "shoot":
        shots = plan.event_start_s + shot_times(part_rng(plan, 3))
        flash = (np.abs(times[:, None] - shots - 0.03) < 0.06).any(axis=1)
        return [person(spot[0] + still, spot[1], "aim", blink=flash, heading=rng.choice((0.0, math.pi)))]
    if label in ("knockdown", "arrest"):
        kind, turn = ("car", 1) if label == "knockdown" else ("police", -1)
        points = [(0, -turn * 17, spot[1]), (0.45, spot[0], spot[1]), (0.6, spot[0] + turn * 2, spot[1])]
        points.append((1, spot[0] + turn * 2, spot[1]))
        x, y = path(times, plan.event_start_s, plan.event_whole_s, points, 0.5)
        heading = 0.0 if turn > 0 else math.pi
        details = {"colours": ((235, 235, 240), (40, 60, 180)), "blink": times % 0.4 < 0.2} if kind == "police" else {}
        vehicle = moving(kind, fps, x, y, rng, heading, **details)
        if kind == "car":
            return [vehicle]
        held = spot - np.array((3.5, 2.0))
        steps = 2.2 * np.clip(1 - u / 0.4, 0, 1)
        officer = {"colours": ((24, 32, 74), (24, 28, 50))}
        suspect = person(held[0] + still, held[1], "kneel", heading=0.0)
        return [
            vehicle,
            suspect,
            *[person(held[0] + side * (0.7 + steps), held[1], "walk", **officer) for side in (-1, 1)],
        ]
    return []


def cast(plan: ClipPlan, with_event: bool = True) -> tuple[list[Actor], list[Actor]]:
    """Let a clip happen, with its anomaly or without: everyone else, and who takes part in the anomaly.

    The anomaly's sound comes from the first who takes part; a panic has nobody but the crowd itself.
    """
    times = np.arange(plan.num_frames) / plan.fps
    with_event = with_event and plan.event_start_s is not None
    if plan.scene == "crowd":
        return _crowd_cast(plan, times, with_event)
    layout = LAYOUTS[plan.scene]
    event = _street_event(plan, layout, times, part_rng(plan, 2)) if with_event else []
    others = traffic(part_rng(plan, 1), layout, times, event, plan.fps)
    rng = part_rng(plan, 10)
    for actor in event if layout.bold else ():
        actor.pattern, actor.size = PATTERNS[rng.integers(len(PATTERNS))], BOLD_FIGURE_SIZE
    return others, event
