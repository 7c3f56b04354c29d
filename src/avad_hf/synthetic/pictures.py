"""Draws the synthetic world: a camera over a street or a square, vehicles made of boxes, people made of lines."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .stage import HEIGHT, LAYOUTS, SUPER, WIDTH, Actor, Camera

SKIN = ((224, 178, 148), (176, 124, 92), (120, 82, 60), (240, 200, 170))


@dataclass(frozen=True)
class Box:
    """A part of a vehicle in its own frame, in metres: from back to front, half a width, from bottom to top."""

    back: float
    front: float
    half: float
    bottom: float
    top: float
    panes: int = 0
    glass: tuple[float, float] = (0.15, 0.85)
    second_colour: bool = False


@dataclass(frozen=True)
class Vehicle:
    """Boxes, positions of the axles, radius of the wheels."""

    boxes: tuple[Box, ...]
    axles: tuple[float, ...]
    radius: float = 0.36


CAR = (Box(-2.1, 2.1, 0.88, 0.32, 0.95), Box(-1.6, 0.9, 0.78, 0.95, 1.5, panes=2))
VEHICLES = {
    "car": Vehicle(CAR, (-1.3, 1.35)),
    "hatchback": Vehicle((Box(-1.8, 1.8, 0.85, 0.32, 1.0), Box(-1.75, 0.8, 0.78, 1.0, 1.58, panes=2)), (-1.15, 1.15)),
    "van": Vehicle((Box(-2.3, 2.2, 0.95, 0.35, 1.2), Box(-2.3, 1.5, 0.92, 1.2, 2.05, panes=3)), (-1.5, 1.4), 0.38),
    "police": Vehicle((*CAR, Box(-0.5, -0.1, 0.6, 1.5, 1.68, second_colour=True)), (-1.3, 1.35)),
    "bus": Vehicle((Box(-5.6, 5.6, 1.25, 0.35, 3.1, panes=7, glass=(0.42, 0.82)),), (-3.6, 3.7), 0.5),
    "truck": Vehicle(
        (
            Box(-6.0, 2.6, 1.25, 1.0, 3.8),
            Box(-6.0, 2.6, 1.1, 0.5, 1.0, second_colour=True),
            Box(3.0, 5.2, 1.2, 0.5, 3.0, panes=1, glass=(0.5, 0.88), second_colour=True),
        ),
        (-5.0, -3.9, 3.9),
        0.52,
    ),
}


def _shade(colour, factor: float) -> tuple[int, int, int]:
    return tuple(min(255, int(c * factor)) for c in colour)


def _upright(start, end, shares, heights) -> np.ndarray:
    """Corners of a rectangle that stands on a part of the line from start to end."""
    one, two = (np.array(start) + share * (np.array(end) - start) for share in shares)
    low, top = heights
    return np.array([(*one, low), (*two, low), (*two, top), (*one, top)])


def _box_faces(box: Box, eye: np.ndarray, paint) -> list[tuple[np.ndarray, tuple]]:
    """Corners and colours of the faces that the eye sees, each followed by its glass; all in the vehicle's frame."""
    b, f, h, low, top = box.back, box.front, box.half, box.bottom, box.top
    sides = [
        (eye[0] > f, [(f, -h), (f, h)], 0.72, 1),
        (eye[0] < b, [(b, -h), (b, h)], 0.66, 1),
        (eye[1] > h, [(b, h), (f, h)], 0.88, box.panes),
        (eye[1] < -h, [(b, -h), (f, -h)], 0.88, box.panes),
    ]
    faces = []
    for seen, (start, end), light, panes in sides:
        if not seen:
            continue

        faces.append((_upright(start, end, (0, 1), (low, top)), _shade(paint, light)))
        if box.panes:
            glass = [low + share * (top - low) for share in box.glass]
            for pane in range(panes):
                faces.append((_upright(start, end, ((pane + 0.1) / panes, (pane + 0.9) / panes), glass), (58, 72, 86)))
    if eye[2] > top:
        faces.append((np.array([(b, -h, top), (f, -h, top), (f, h, top), (b, h, top)]), _shade(paint, 1.08)))
    return faces


def _draw_vehicle(
    draw: ImageDraw.ImageDraw, glow: ImageDraw.ImageDraw, camera: Camera, actor: Actor, i: int, lit: bool
):
    spec, angle = VEHICLES[actor.kind], actor.heading[i]
    cos, sin = math.cos(angle), math.sin(angle)
    turn, at = np.array([[cos, sin], [-sin, cos]]), np.array([actor.x[i], actor.y[i]])
    eye = np.array([*(turn @ -at), camera.height_m])

    def pixels(local):
        local = np.asarray(local, dtype=float)
        ground = local[..., :2] @ turn + at
        return camera.project(np.concatenate([ground, local[..., 2:]], axis=-1))[0]

    def polygon(local, colour, canvas=draw):
        canvas.polygon([tuple(p) for p in pixels(local)], fill=colour)

    back, front = min(b.back for b in spec.boxes), max(b.front for b in spec.boxes)
    half, side = spec.boxes[0].half, math.copysign(1.0, eye[1])
    polygon([(back - 0.2, -half - 0.3, 0), (front + 0.2, -half - 0.3, 0), (front + 0.2, half + 0.3, 0),
             (back - 0.2, half + 0.3, 0)], (0, 0, 0, 110))  # fmt: skip

    def distance(box):
        return math.hypot(eye[0] - (box.back + box.front) / 2, eye[1])

    for box in sorted(spec.boxes, key=lambda box: (box.bottom > 0.9, -distance(box))):
        for corners, colour in _box_faces(box, eye, actor.colours[1 if box.second_colour else 0]):
            polygon(corners, colour)
    circle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    for axle in spec.axles:
        for radius, colour in ((spec.radius, (22, 22, 24)), (spec.radius * 0.5, (130, 130, 135))):
            rim = [(axle + radius * math.cos(a), side * (half + 0.02), spec.radius + radius * math.sin(a))
                   for a in circle]  # fmt: skip
            polygon(rim, colour)
    blink = actor.blink is not None and actor.blink[i]
    for end, seen, colour in ((front, eye[0] > front, (255, 250, 215)), (back, eye[0] < back, (205, 20, 20))):
        for across in (-0.75 * half, 0.75 * half):
            (px, py), scale = (v[0] for v in camera.project([(*(np.array([end, across]) @ turn + at), 0.75)]))
            r = scale * 0.13
            if seen or blink:
                draw.ellipse((px - r, py - r, px + r, py + r), fill=(255, 150, 10) if blink else colour)
            if lit or blink:
                r, strength = (r * 2.4, 255) if (end == front and seen) or blink else (r, 90)
                box = [v / SUPER for v in (px - r, py - r, px + r, py + r)]
                glow.ellipse(box, fill=strength)
    if lit:
        cone = pixels([(front, -0.6, 0), (front, 0.6, 0), (front + 7, 2.2, 0), (front + 7, -2.2, 0)]) / SUPER
        glow.polygon([tuple(p) for p in cone], fill=105)
    if actor.kind == "police":
        (px, py), scale = (v[0] for v in camera.project([(*at, 1.7)]))
        colour = (40, 90, 255) if blink else (255, 30, 30)
        r = scale * 0.5
        draw.ellipse((px - r, py - r / 2, px + r, py + r / 2), fill=colour)
        glow.ellipse([v / SUPER for v in (px - r, py - r, px + r, py + r)], fill=200 if blink else 120)


# A figure is a list of strokes: points along (forward, up) in metres, a width in metres, a colour's name. One point
# alone is a disc of that diameter.
def _person(turn: float, pose: str) -> list:
    swing = math.sin(turn)
    stride = {"walk": 0.34, "run": 0.6, "punch": 0.25}.get(pose, 0.1) * swing
    lean = {"run": 0.2, "punch": 0.12}.get(pose, 0.02)
    hip, shoulder, head = (0.0, 0.88), (lean, 1.42), (lean * 1.3, 1.66)
    feet, hands = [(stride, 0.0), (-stride, 0.0)], [(lean - stride, 0.95), (lean + stride, 0.95)]
    if pose == "cheer":
        hands = [(-0.3, 1.85 + 0.12 * swing), (0.3, 1.85 - 0.12 * swing)]
    elif pose == "aim":
        hands = [(0.75, 1.45), (0.7, 1.42)]
    elif pose == "punch":
        hands = [(0.2 + 0.55 * max(0.0, swing), 1.45), (0.2 + 0.55 * max(0.0, -swing), 1.35)]
    elif pose == "kneel":
        hip, shoulder, head = (0.0, 0.42), (0.12, 0.92), (0.2, 1.14)
        feet, hands = [(-0.4, 0.05), (0.25, 0.0)], [(-0.2, 0.6), (-0.2, 0.55)]
    strokes = [([hip, foot], 0.2, "second") for foot in feet] + [([hip, shoulder], 0.44, "main")]
    strokes += [([shoulder, hand], 0.14, "main") for hand in hands] + [([head], 0.32, "skin")]
    if pose == "fall":  # turned by a quarter, close to the ground
        strokes = [([(up - 0.9, 0.12 + 0.5 * a) for a, up in points], *rest) for points, *rest in strokes]
    return strokes


def _bicycle(turn: float, pose: str) -> list:
    strokes = [
        ([(axle, 0.36)], size, part) for axle in (-0.55, 0.55) for size, part in ((0.76, "dark"), (0.5, "grey"))
    ]
    frame = [(-0.55, 0.36), (-0.15, 0.85), (0.42, 0.85), (0.0, 0.32), (-0.15, 0.85), (0.0, 0.32), (-0.55, 0.36)]
    strokes += [(frame, 0.07, "second"), ([(0.55, 0.36), (0.4, 1.0)], 0.07, "second")]
    for phase in (turn, turn + math.pi):
        knee, foot = (0.18, 0.72 + 0.1 * math.sin(phase)), (0.18 * math.cos(phase), 0.3 + 0.18 * math.sin(phase))
        strokes.append(([(-0.15, 1.0), knee, foot], 0.15, "dark"))
    return [*strokes, ([(-0.15, 1.0), (0.18, 1.5)], 0.36, "main"), ([(0.18, 1.45), (0.45, 1.05)], 0.12, "skin"),
            ([(0.28, 1.74)], 0.32, "skin")]  # fmt: skip


def _scooter(turn: float, pose: str) -> list:
    return [
        *[([(axle, 0.25)], 0.5, "dark") for axle in (-0.6, 0.65)],
        ([(-0.75, 0.62), (-0.15, 0.62)], 0.4, "second"),
        ([(-0.2, 0.38), (0.35, 0.36), (0.5, 1.05)], 0.2, "second"),
        ([(-0.3, 0.92), (0.15, 0.82), (0.2, 0.42)], 0.2, "dark"),
        ([(-0.3, 0.95), (-0.18, 1.48)], 0.4, "main"),
        ([(-0.18, 1.4), (0.42, 1.08)], 0.13, "main"),
        ([(-0.1, 1.74)], 0.42, "white"),
    ]


def _horse(turn: float, pose: str) -> list:
    strokes = []
    for hip, phase in ((-0.75, turn), (0.65, turn + math.pi), (-0.65, turn + math.pi), (0.75, turn)):
        step, lift = math.sin(phase), max(0.0, math.cos(phase))
        strokes.append(([(hip, 1.05), (hip + 0.28 * step, 0.55 + 0.1 * lift), (hip + 0.42 * step, 0.22 * lift)], 0.15,
                        "shade"))  # fmt: skip
    return [
        *strokes,
        ([(-0.75, 1.25), (0.7, 1.25)], 0.58, "main"),
        ([(0.65, 1.35), (1.15, 1.95)], 0.36, "main"),
        ([(1.1, 1.98), (1.55, 1.72)], 0.25, "main"),
        ([(0.6, 1.7), (1.05, 2.15)], 0.12, "shade"),
        ([(-0.95, 1.35), (-1.2, 1.05), (-1.15, 0.65)], 0.14, "shade"),
        ([(-0.05, 2.1), (-0.1, 1.5), (0.1, 1.0)], 0.26, "second"),
        ([(-0.05, 2.0), (0.4, 1.7)], 0.12, "second"),
        ([(-0.02, 2.34)], 0.32, "skin"),
    ]


FIGURES = {"person": _person, "bicycle": _bicycle, "scooter": _scooter, "horse": _horse}


def _draw_figure(draw, glow, camera: Camera, actor: Actor, i: int, lit: bool) -> None:
    """Draw strokes in a plane that stands upright and faces the camera, a fifth larger than life to be seen."""
    (foot,), (scale,) = camera.project([(actor.x[i], actor.y[i], 0.0)])
    scale, cos, tall = scale * 1.2, math.cos(actor.heading[i]), math.cos(camera.pitch)
    wide = math.copysign(max(abs(cos), 0.4), cos)  # seen from behind it is narrow, but never nothing
    main, second = actor.colours
    skin = SKIN[int(actor.gait[0] * 97) % len(SKIN)]
    colours = {"main": main, "second": second, "shade": _shade(main, 0.7), "skin": skin, "dark": (26, 27, 32),
               "grey": (125, 125, 128), "white": (235, 235, 240)}  # fmt: skip

    def disc(point, radius, colour, canvas=draw, zoom=1.0, flat=1.0):
        x, y, r = (foot[0] + point[0] * wide * scale) * zoom, (foot[1] - point[1] * tall * scale) * zoom, radius * zoom
        canvas.ellipse((x - r, y - r * flat, x + r, y + r * flat), fill=colour)

    disc((0, 0), 0.45 * scale, (0, 0, 0, 90), flat=0.35)
    for points, width, part in FIGURES[actor.kind](actor.gait[i], actor.pose[i] if actor.pose else "walk"):
        if len(points) == 1:
            disc(points[0], width * scale / 2, colours[part])
        else:
            line = [(foot[0] + a * wide * scale, foot[1] - up * tall * scale) for a, up in points]
            draw.line(line, fill=colours[part], width=max(1, round(width * scale)), joint="curve")
    if actor.kind == "scooter" and lit:
        disc((0.65, 0.9), 5, 255, glow, 1 / SUPER)
    if actor.blink is not None and actor.blink[i]:  # the flash of a gun
        disc((1.0, 1.45), 0.35 * scale, (255, 240, 170))
        disc((1.0, 1.45), 1.2 * scale, 230, glow, 1 / SUPER)


class Painter:
    """Paints the frames of one clip.

    Args:
        scene: A key of `LAYOUTS`.
        hour: Hour of the day, 0 to 23.
        weather: clear, rain or fog.
        dark: Whether there is little light, at any hour.
        rng: For what differs from clip to clip: light, wind, sensor.
    """

    def __init__(self, scene: str, hour: int, weather: str, dark: bool, rng: np.random.Generator):
        self.scene, self.layout, self.weather, self.rng = scene, LAYOUTS[scene], weather, rng
        self.lit = dark or hour < 7 or hour > 18
        self.back, self.front, self.cover = _backdrop(scene)
        night = hour < 6 or hour > 19
        ambient = np.array((0.31, 0.32, 0.39) if night else (0.48, 0.48, 0.52) if dark else (1.0, 1.0, 1.0))
        if hour in (6, 7, 18, 19):
            ambient = ambient * (0.88, 0.78, 0.74)
        self.light = np.broadcast_to(ambient * rng.uniform(0.85, 1.12), (HEIGHT, WIDTH, 3)).copy()
        rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
        if self.lit:
            for column in rng.uniform(0, WIDTH, 3):
                pool = np.exp(-(((columns - column) / 26) ** 2) - ((rows - 50) / 22) ** 2)
                self.light += pool[..., None] * (0.32, 0.26, 0.16)
        if self.cover is not None:
            inside = 1 - np.asarray(self.cover.getchannel("A").reduce(SUPER), dtype=float) / 255
            self.light *= 1 - 0.6 * inside[..., None]
        # Fog hides what is far, which is what is high in the picture.
        thick = rng.uniform(0.5, 0.85) if weather == "fog" else 0.08 if weather == "rain" else 0.0
        self.fog = (thick * np.clip(1.15 - rows / HEIGHT, 0, 1))[..., None]
        self.grey = np.array((200, 205, 210)) * ambient
        self.noise = rng.normal(0, rng.uniform(1.5, 3.0) * (1.5 if self.lit else 1), (HEIGHT * 2, WIDTH * 2, 1))
        self.drift = rng.uniform(0.02, 0.1), rng.uniform(0.2, 1.2), rng.uniform(0, 6.3)
        self.streaks = _streaks(rng) if weather == "rain" else None

    def paint(self, index: int, time_s: float, actors: list[Actor]) -> np.ndarray:
        """Paint one frame: RGB of shape `(HEIGHT, WIDTH, 3)`, uint8."""
        canvas = self.back.copy()
        glow = Image.new("L", (WIDTH, HEIGHT))
        draw, glow_draw = ImageDraw.Draw(canvas, "RGBA"), ImageDraw.Draw(glow)
        here = sorted((a for a in actors if not math.isnan(a.x[index])), key=lambda a: -a.y[index])
        behind = [a for a in here if a.y[index] > self.layout.facade_y]
        for group in (behind, here[len(behind) :]):
            for actor in group:
                drawer = _draw_vehicle if actor.kind in VEHICLES else _draw_figure
                drawer(draw, glow_draw, self.layout.camera, actor, index, self.lit)
            if group is behind:
                canvas.paste(self.front, mask=self.front)
        if self.cover is not None:
            canvas.paste(self.cover, mask=self.cover)
            glow.paste(0, mask=self.cover.getchannel("A").reduce(SUPER))
        picture = np.asarray(canvas.reduce(SUPER), dtype=np.float32)
        shine = np.asarray(glow.filter(ImageFilter.BoxBlur(2)), dtype=np.float32)[..., None] / 255
        size, speed, phase = self.drift
        light = self.light * (1 + size * math.sin(speed * time_s + phase)) + 0.75 * shine
        picture = picture * light * (1 - self.fog) + self.grey * self.fog + shine * (70, 64, 48)
        if self.streaks is not None:
            picture += np.roll(self.streaks, (self.rng.integers(0, HEIGHT), self.rng.integers(0, WIDTH)), axis=(0, 1))
        row, column = self.rng.integers(0, HEIGHT), self.rng.integers(0, WIDTH)
        picture += self.noise[row : row + HEIGHT, column : column + WIDTH]
        return np.clip(picture, 0, 255).astype(np.uint8)


def _streaks(rng) -> np.ndarray:
    sheet = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(sheet)
    for x, y, length in zip(
        rng.uniform(0, WIDTH, 110), rng.uniform(0, HEIGHT, 110), rng.uniform(4, 9, 110), strict=True
    ):
        draw.line((x, y, x - length / 5, y + length), fill=int(length * 6))
    return np.asarray(sheet.filter(ImageFilter.BoxBlur(0.4)), dtype=np.float32)[..., None] * (0.8, 0.85, 0.95)


@lru_cache
def _backdrop(scene: str) -> tuple[Image.Image, Image.Image, Image.Image | None]:
    """What never moves: the ground and the distance; the buildings; and what stands before everything, if anything."""
    layout, size = LAYOUTS[scene], (SUPER * WIDTH, SUPER * HEIGHT)
    rng = np.random.default_rng(sum(scene.encode()))
    back, front = Image.new("RGB", size, (172, 196, 218)), Image.new("RGBA", size)
    draw, front_draw = ImageDraw.Draw(back), ImageDraw.Draw(front)

    def quad(corners, colour, canvas=draw):
        canvas.polygon([tuple(p) for p in layout.camera.project(corners)[0]], fill=colour)

    def ground(x0, x1, y0, y1, colour):
        quad([(x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0)], colour)

    def wall(x0, x1, z0, z1, colour, canvas=front_draw, y=layout.facade_y):
        quad([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)], colour, canvas)

    wide, near, far = 60.0, layout.road_y, layout.road_y + 7
    ground(-wide, wide, 1, 90, (156, 150, 140))
    if scene == "crowd":
        for x in range(-30, 31, 2):
            for y in range(4, int(layout.facade_y), 2):
                ground(x, x + 2, y, y + 2, (164, 156, 142) if (x + y) // 2 % 2 else (154, 147, 136))
    else:
        ground(layout.side_x - 2.6, layout.side_x + 2.6, far, 70, (92, 93, 97))
        wall(layout.side_x - 12, layout.side_x + 12, 0, 7, (140, 132, 124), draw, y=64)
        ground(-wide, wide, near, far, (84, 85, 89))
        for edge in (near, far):
            ground(-wide, wide, edge - 0.14, edge + 0.14, (196, 194, 188))
        for x in np.arange(-wide, wide, 4.0):
            ground(x, x + 2, near + 3.42, near + 3.58, (226, 224, 212))
        for y in np.arange(near + 0.4, far - 0.4, 1.0):
            ground(-5.5, -2.8, y, y + 0.5, (226, 224, 216))
    x = -wide
    while x < wide:
        width, height = rng.uniform(6, 10), rng.uniform(6, 10) if scene != "overlook" else rng.uniform(5, 7)
        if scene != "crowd" and layout.side_x - 2.8 < x + width and x < layout.side_x + 2.8:
            width = layout.side_x - 2.8 - x if x < layout.side_x - 2.8 else 0.0
        if width < 0.5:
            x = layout.side_x + 2.8
            continue
        paint = (
            (118, 116, 112)
            if scene == "underpass"
            else tuple((rng.integers(135, 205) + rng.integers(-22, 23, 3)).tolist())
        )
        wall(x, x + width, 0, height, paint)
        for low in np.arange(1.2, height - 1.4, 2.6) if scene != "underpass" else ():
            for left in np.arange(x + 0.7, x + width - 1.2, 2.1):
                wall(left, left + 1.0, low, low + 1.4, _shade(paint, 0.45))
        wall(x, x + width, height - 0.3, height, _shade(paint, 0.75))
        x += width
    for x in (-11.5, 1.0, 12.0) if scene in ("crossing", "overlook") else ():
        wall(x - 0.15, x + 0.15, 0, 2.2, (88, 66, 48), y=layout.facade_y - 0.8)
        for across, up, radius, green in ((-0.7, 2.7, 1.0, 74), (0.7, 2.8, 1.0, 88), (0.0, 3.5, 1.1, 100)):
            (px, py), scale = layout.camera.project((x + across, layout.facade_y - 0.8, up))
            r = radius * float(scale)
            front_draw.ellipse((px - r, py - r, px + r, py + r), fill=(52, green, 46))
    cover = None
    if scene == "underpass":
        # The wall before the tunnel, with openings between its pillars.
        cover = Image.new("RGBA", size, (128, 124, 118, 255))
        draw = ImageDraw.Draw(cover)
        for course in range(0, size[1], 18):
            draw.line((0, course, size[0], course), fill=(112, 108, 103))
        for left in (0.05, 0.45, 0.85):
            opening = (left * size[0], 0.36 * size[1], (left + 0.1) * size[0], 0.85 * size[1])
            draw.rounded_rectangle(opening, radius=14, fill=(0, 0, 0, 0), outline=(88, 85, 80), width=4)
    grain = rng.normal(0, 5, (size[1], size[0], 1))
    back = Image.fromarray(np.clip(np.asarray(back) + grain, 0, 255).astype(np.uint8))
    return back, front, cover
