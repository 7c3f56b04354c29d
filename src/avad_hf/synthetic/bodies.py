"""Bodies of the synthetic world: vehicles made of boxes, people and animals made of strokes."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import ImageDraw

from .stage import SUPER, WIDTH, Actor, Camera

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
    "ambulance": Vehicle(
        (
            Box(-2.9, 2.4, 1.0, 0.35, 1.3),
            Box(-2.9, 1.6, 0.98, 1.3, 2.5, panes=3, glass=(0.45, 0.85)),
            Box(0.5, 1.2, 0.8, 2.5, 2.75, second_colour=True),
        ),
        (-1.8, 1.6),
        0.4,
    ),
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


# Height of the beacon of those that have one.
BEACONS_M = {"police": 1.7, "ambulance": 2.8}
# Width of a stripe, and height of a band.
PATCH_M = 0.7
# How far the beam of headlights reaches, half its width there, and what lamps and a shadow add to a vehicle's box.
BEAM_M, BEAM_HALF_M, MARGIN_M = 7.0, 2.2, 0.6
TALLEST_M = max(box.top for vehicle in VEHICLES.values() for box in vehicle.boxes) + MARGIN_M


def shade(colour, factor: float) -> tuple[int, int, int]:
    """A colour in more or less light."""
    return tuple(min(255, int(c * factor)) for c in colour)


def _upright(start, end, shares, heights) -> np.ndarray:
    """Corners of a rectangle that stands on a part of the line from start to end."""
    one, two = (np.array(start) + share * (np.array(end) - start) for share in shares)
    low, top = heights
    return np.array([(*one, low), (*two, low), (*two, top), (*one, top)])


def _pattern(pattern: str, start, end, low: float, top: float) -> list[np.ndarray]:
    """Rectangles that stripes, bands or checks take of an upright face, of which `low` to `top` is free of glass."""
    columns = max(2, round(math.dist(start, end) / PATCH_M))
    heights = np.linspace(low, top, max(2, round((top - low) / PATCH_M)) + 1)
    if pattern == "bands":
        return [_upright(start, end, (0, 1), pair) for pair in zip(heights[:-1:2], heights[1::2], strict=False)]
    rows = [(low, top)] if pattern == "stripes" else list(pairwise(heights))
    return [
        _upright(start, end, (column / columns, (column + 1) / columns), row)
        for i, row in enumerate(rows)
        for column in range(i % 2, columns, 2)
    ]


def _box_faces(box: Box, eye: np.ndarray, paint, pattern: str | None, second) -> list[tuple[np.ndarray, tuple]]:
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

        faces.append((_upright(start, end, (0, 1), (low, top)), shade(paint, light)))
        if pattern:
            free = low + box.glass[0] * (top - low) if box.panes else top
            faces += [(corners, shade(second, light)) for corners in _pattern(pattern, start, end, low, free)]
        if box.panes:
            glass = [low + share * (top - low) for share in box.glass]
            for pane in range(panes):
                faces.append((_upright(start, end, ((pane + 0.1) / panes, (pane + 0.9) / panes), glass), (58, 72, 86)))
    if eye[2] > top:
        faces.append((np.array([(b, -h, top), (f, -h, top), (f, h, top), (b, h, top)]), shade(paint, 1.08)))
    return faces


def draw_vehicle(
    draw: ImageDraw.ImageDraw, glow: ImageDraw.ImageDraw, camera: Camera, actor: Actor, i: int, lit: bool
) -> None:
    """Draw one that is made of boxes, on the enlarged canvas; its lamps also on `glow`, which is not enlarged."""
    spec, angle = VEHICLES[actor.kind], actor.heading[i]
    cos, sin = math.cos(angle), math.sin(angle)
    turn, at = np.array([[cos, sin], [-sin, cos]]), np.array([actor.x[i], actor.y[i]])
    eye = np.array([*(turn @ -at), camera.height_m])

    def pixels(local):
        local = np.asarray(local, dtype=float)
        ground = local[..., :2] @ turn + at
        return camera.project(np.concatenate([ground, local[..., 2:]], axis=-1))[0]

    def polygon(local, colour, canvas=draw):
        canvas.polygon(pixels(local).ravel().tolist(), fill=colour)

    back, front = min(b.back for b in spec.boxes), max(b.front for b in spec.boxes)
    half, side = spec.boxes[0].half, math.copysign(1.0, eye[1])
    # Half of the traffic is on its way beside the picture: heard, and not seen. Its box, with lamps and beams, tells.
    ends, sides = (back - MARGIN_M, front + BEAM_M + MARGIN_M), (-BEAM_HALF_M - MARGIN_M, BEAM_HALF_M + MARGIN_M)
    across = pixels([(x, y, z) for x in ends for y in sides for z in (0, TALLEST_M)])[:, 0]
    if across.max() < 0 or across.min() > SUPER * WIDTH:
        return
    polygon([(back - 0.2, -half - 0.3, 0), (front + 0.2, -half - 0.3, 0), (front + 0.2, half + 0.3, 0),
             (back - 0.2, half + 0.3, 0)], (0, 0, 0, 110))  # fmt: skip

    def distance(box):
        return math.hypot(eye[0] - (box.back + box.front) / 2, eye[1])

    for box in sorted(spec.boxes, key=lambda box: (box.bottom > 0.9, -distance(box))):
        paint, second = actor.colours[::-1] if box.second_colour else actor.colours
        for corners, colour in _box_faces(box, eye, paint, actor.pattern, second):
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
    if actor.smoke_m is not None and actor.smoke_m[i] > 0:
        for behind, grow in ((-0.4, 0.8), (0.6, 1.0), (1.8, 1.2)):
            radius = grow * actor.smoke_m[i]
            (px, py), scale = (v[0] for v in camera.project([(*(np.array([back - behind, 0.0]) @ turn + at), radius)]))
            r = radius * scale
            draw.ellipse((px - r, py - r, px + r, py + r), fill=(214, 214, 216, 170))
    if lit:
        far, wide = front + BEAM_M, BEAM_HALF_M
        cone = pixels([(front, -0.6, 0), (front, 0.6, 0), (far, wide, 0), (far, -wide, 0)]) / SUPER
        glow.polygon([tuple(p) for p in cone], fill=105)
    if actor.kind in BEACONS_M:
        (px, py), scale = (v[0] for v in camera.project([(*at, BEACONS_M[actor.kind])]))
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


# Strokes of this width and more are trunks, which bear a pattern.
BROAD_M = 0.34
FIGURES = {"person": _person, "bicycle": _bicycle, "scooter": _scooter, "horse": _horse}


def draw_figure(draw, glow, camera: Camera, actor: Actor, i: int, lit: bool) -> None:
    """Draw strokes in a plane that stands upright and faces the camera."""
    (foot,), (scale,) = camera.project([(actor.x[i], actor.y[i], 0.0)])
    scale, cos, tall = scale * actor.size, math.cos(actor.heading[i]), math.cos(camera.pitch)
    wide = math.copysign(max(abs(cos), 0.4), cos)  # seen from behind it is narrow, but never nothing
    main, second = actor.colours
    skin = SKIN[int(actor.gait[0] * 97) % len(SKIN)]
    colours = {"main": main, "second": second, "shade": shade(main, 0.7), "skin": skin, "dark": (26, 27, 32),
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
            broad = max(1, round(width * scale))
            draw.line(line, fill=colours[part], width=broad, joint="curve")
            if actor.pattern and part == "main" and width >= BROAD_M:
                (ax, ay), (bx, by) = line[0], line[-1]
                at = [(ax + share * (bx - ax), ay + share * (by - ay)) for share in (0.08, 0.3, 0.5, 0.7, 0.92)]
                if actor.pattern == "bands":
                    draw.line(line, fill=second, width=max(1, broad // 3))
                for a, b in zip(at[::2], at[1::2], strict=False) if actor.pattern == "stripes" else ():
                    draw.line([a, b], fill=second, width=broad)
                for x, y in at if actor.pattern == "checks" else ():
                    draw.ellipse((x - broad / 5, y - broad / 4, x + broad / 5, y + broad / 4), fill=second)
    if actor.kind == "scooter" and lit:
        disc((0.65, 0.9), 5, 255, glow, 1 / SUPER)
    if actor.blink is not None and actor.blink[i]:  # the flash of a gun
        disc((1.0, 1.45), 0.35 * scale, (255, 240, 170))
        disc((1.0, 1.45), 1.2 * scale, 230, glow, 1 / SUPER)
