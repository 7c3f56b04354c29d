"""Streets of the synthetic world, enlarged, whose people have faces and whose vehicles have number plates.

The world's own pictures are too small for either. Here they are enlarged, and a drawn face goes onto every head and a
drawn plate onto every vehicle, so that a raw and an anonymised version of the same videos can be compared. Everybody
looks into the camera, and a plate is on the side or the end of a vehicle that shows most.
"""

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from avad_hf.media.encode import write_video

from . import sounds
from .bodies import FIGURES, VEHICLES
from .composed import STREETS
from .faces import Cutout, draw_face
from .plates import FORMS, HEIGHT_MM, WIDTH_MM, draw_plate
from .sprites import Sprite, Truth, paste, sprite
from .stage import HEIGHT, LAYOUTS, SUPER, WIDTH, Actor, ClipPlan, Layout, cast, part_rng
from .world import clip_pictures, clip_sound

# From hairline to chin, and how high the middle of a plate is above the ground.
FACE_M, PLATE_Z_M = 0.3, 0.65
# Light on faces and plates; the painter's own differs from place to place.
BRIGHT, DARK = 0.9, 0.5
# Plates that are seen so much from the side that they are narrower are not drawn, nor counted.
NARROWEST_PX = 16.0


def _pixels(layout: Layout, points: Any, zoom: int) -> np.ndarray:
    return layout.camera.project(points)[0] * zoom / SUPER


def _hides(layout: Layout, vehicle: Actor, i: int, zoom: int, point: np.ndarray) -> bool:
    """Whether a vehicle is before a point of the picture; its outline is taken for upright."""
    boxes = VEHICLES[vehicle.kind].boxes
    reach = max(max(-box.back, box.front) for box in boxes)
    half_x = max(reach * abs(math.cos(vehicle.heading[i])), boxes[0].half)
    top = max(box.top for box in boxes)
    x, y = vehicle.x[i], vehicle.y[i] - boxes[0].half
    (left, low), (right, high) = _pixels(layout, [(x - half_x, y, 0.0), (x + half_x, y, top)], zoom)
    return left < point[0] < right and high < point[1] < low


def _head(layout: Layout, actor: Actor, i: int, zoom: int) -> tuple[np.ndarray, float] | None:
    """Middle of the head in the picture and pixels a metre there; ``None`` for who wears a helmet."""
    pose = actor.pose[i] if actor.pose else "walk"
    heads = [points[0] for points, _, part in FIGURES[actor.kind](actor.gait[i], pose)
             if len(points) == 1 and part == "skin"]  # fmt: skip
    if not heads:
        return None
    (foot,), (scale,) = layout.camera.project([(actor.x[i], actor.y[i], 0.0)])
    scale, cos = scale * actor.size * zoom / SUPER, math.cos(actor.heading[i])
    # As `draw_figure` turns and shortens them.
    forward, up = heads[0]
    wide = math.copysign(max(abs(cos), 0.4), cos)
    return foot * zoom / SUPER + scale * np.array([forward * wide, -up * math.cos(layout.camera.pitch)]), scale


def _plate(layout: Layout, actor: Actor, i: int, zoom: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Middle of the plate in the picture and the matrix from millimetres; ``None`` if it is too narrow."""
    boxes, cos, sin = VEHICLES[actor.kind].boxes, math.cos(actor.heading[i]), math.sin(actor.heading[i])
    forward, left = np.array([cos, sin]), np.array([-sin, cos])
    at = np.array([actor.x[i], actor.y[i]])
    front, back, half = max(b.front for b in boxes), min(b.back for b in boxes), boxes[0].half
    best = None
    for out, distance, along in ((forward, front, left), (-forward, -back, left), (left, half, forward),
                                 (-left, half, forward)):  # fmt: skip
        middle = at + distance * out
        if out @ -middle <= 0:  # turned away from the camera
            continue
        step = along * WIDTH_MM / 2000
        ends = [(*(middle - step), PLATE_Z_M), (*(middle + step), PLATE_Z_M)]
        one, two, low, high = _pixels(
            layout, [*ends, (*middle, PLATE_Z_M - HEIGHT_MM / 2000), (*middle, PLATE_Z_M + HEIGHT_MM / 2000)], zoom
        )
        if one[0] > two[0]:
            one, two = two, one
        matrix = np.stack([(two - one) / WIDTH_MM, (low - high) / HEIGHT_MM], axis=1)
        if best is None or np.linalg.norm(two - one) > best[0]:
            best = np.linalg.norm(two - one), (one + two) / 2, matrix
    return None if best is None or best[0] < NARROWEST_PX else best[1:]


def recognisable_pictures(plan: ClipPlan, zoom: int = 8) -> Iterator[tuple[float, np.ndarray, list[Truth]]]:
    """Paint a clip in which people have faces and vehicles have number plates.

    Args:
        plan: A clip of one of the scenes `composed.STREETS`; on the avenue, faces and plates are largest.
        zoom: How many times as large as the world's own pictures: 8 gives 1280 x 720.

    Yields:
        Time in seconds, RGB of shape `(90 * zoom, 160 * zoom, 3)`, uint8, and the faces and plates in the picture.

    Raises:
        ValueError: If the plan's scene is another.
    """
    if plan.scene not in STREETS:
        raise ValueError(f"{plan.stem} is of the scene {plan.scene}. Give a plan of one of {', '.join(STREETS)}.")
    layout, size = LAYOUTS[plan.scene], (WIDTH * zoom, HEIGHT * zoom)
    others, event = cast(plan)
    actors, rng = [*others, *event], part_rng(plan, 20)
    cutouts: list[Cutout] = [
        draw_plate(FORMS[track % len(FORMS)], rng)[0] if actor.kind in VEHICLES else draw_face(rng)
        for track, actor in enumerate(actors)
    ]
    light = DARK if plan.dark else BRIGHT
    for index, (time_s, picture) in enumerate(clip_pictures(plan)):
        here = [track for track, actor in enumerate(actors)
                if not math.isnan(actor.x[index]) and actor.y[index] <= layout.facade_y]  # fmt: skip
        sprites: list[Sprite] = []
        for track in sorted(here, key=lambda track: -actors[track].y[index]):
            actor, cutout = actors[track], cutouts[track]
            if actor.kind in VEHICLES:
                found = _plate(layout, actor, index, zoom)
                if found is None:
                    continue
                at, matrix = found
                kind, length = "plate", float(np.linalg.norm(matrix[:, 0]) * WIDTH_MM)
            else:
                head = _head(layout, actor, index, zoom)
                if head is None:
                    continue
                at, length = head[0], FACE_M * head[1]
                kind, matrix = "face", np.eye(2) * length / (cutout.box[3] - cutout.box[1])
            nearer = [actors[n] for n in here if actors[n].kind in VEHICLES and actors[n].y[index] < actor.y[index]]
            if any(_hides(layout, vehicle, index, zoom, at) for vehicle in nearer):
                continue
            truth = Truth(track, kind, cutout.box, length, 0.0, light)
            placed = sprite(cutout, truth, matrix, (at[0], at[1]), size)
            if placed is not None:
                sprites.append(placed)
        canvas = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        truths = paste(canvas, sprites)
        yield time_s, np.clip(canvas, 0, 255).astype(np.uint8), truths


def render_recognisable(plan: ClipPlan, path: str | os.PathLike, zoom: int = 8) -> list[tuple[float, list[Truth]]]:
    """Write such a clip as MP4 with the sound of its plan, whole or not at all.

    Args:
        plan: See `recognisable_pictures`.
        path: Name of the MP4.
        zoom: See `recognisable_pictures`.

    Returns:
        Time in seconds and what is in the picture, for each frame.
    """
    known: list[tuple[float, list[Truth]]] = []

    def pictures() -> Iterator[tuple[float, np.ndarray]]:
        for time_s, picture, truths in recognisable_pictures(plan, zoom):
            known.append((time_s, truths))
            yield time_s, picture

    samples, size = np.tanh(sum(clip_sound(plan))), (WIDTH * zoom, HEIGHT * zoom)
    write_video(
        path, pictures(), size, plan.fps, samples=(samples, sounds.RATE_HZ), repeatable=True, is_synthetic=True
    )
    return known
