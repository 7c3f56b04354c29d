"""Draws the synthetic world: a camera over a street or a square, in its light and weather."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .bodies import VEHICLES, draw_figure, draw_vehicle, shade
from .stage import HEIGHT, LAYOUTS, SUPER, WIDTH, Actor


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
        self.back, self.front, self.empty, self.cover = _backdrop(scene)
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
            self.covered = self.cover.getchannel("A").reduce(SUPER)
            inside = 1 - np.asarray(self.covered, dtype=float) / 255
            self.light *= 1 - 0.6 * inside[..., None]
        # Fog hides what is far, which is what is high in the picture.
        thick = rng.uniform(0.5, 0.85) if weather == "fog" else 0.08 if weather == "rain" else 0.0
        fog = (thick * np.clip(1.15 - rows / HEIGHT, 0, 1))[..., None]
        self.clear, self.veil = 1 - fog, np.array((200, 205, 210)) * ambient * fog
        self.noise = rng.normal(0, rng.uniform(1.5, 3.0) * (1.5 if self.lit else 1), (HEIGHT * 2, WIDTH * 2, 1))
        self.drift = rng.uniform(0.02, 0.1), rng.uniform(0.2, 1.2), rng.uniform(0, 6.3)
        self.streaks = _streaks(rng) if weather == "rain" else None

    def paint(self, index: int, time_s: float, actors: list[Actor]) -> np.ndarray:
        """Paint one frame: RGB of shape `(HEIGHT, WIDTH, 3)`, uint8."""
        here = sorted((a for a in actors if not math.isnan(a.x[index])), key=lambda a: -a.y[index])
        behind = [a for a in here if a.y[index] > self.layout.facade_y]
        canvas = (self.back if behind else self.empty).copy()
        glow = Image.new("L", (WIDTH, HEIGHT))
        draw, glow_draw = ImageDraw.Draw(canvas, "RGBA"), ImageDraw.Draw(glow)
        for group in (behind, here[len(behind) :]):
            for actor in group:
                drawer = draw_vehicle if actor.kind in VEHICLES else draw_figure
                drawer(draw, glow_draw, self.layout.camera, actor, index, self.lit)
            if group is behind and behind:
                canvas.paste(self.front, mask=self.front)
        if self.cover is not None:
            canvas.paste(self.cover, mask=self.cover)
            glow.paste(0, mask=self.covered)
        picture = np.asarray(canvas.reduce(SUPER), dtype=np.float32)
        shine = np.asarray(glow.filter(ImageFilter.BoxBlur(2)), dtype=np.float32)[..., None] / 255
        size, speed, phase = self.drift
        light = self.light * (1 + size * math.sin(speed * time_s + phase)) + 0.75 * shine
        picture = picture * light * self.clear + self.veil + shine * (70, 64, 48)
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
def _backdrop(scene: str) -> tuple[Image.Image, Image.Image, Image.Image, Image.Image | None]:
    """What never moves: ground and distance; buildings; both; and what stands before everything, if anything."""
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
            ground(layout.zebra_x - 1.3, layout.zebra_x + 1.4, y, y + 0.5, (226, 224, 216))
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
                wall(left, left + 1.0, low, low + 1.4, shade(paint, 0.45))
        wall(x, x + width, height - 0.3, height, shade(paint, 0.75))
        x += width
    for x in (-11.5, 1.0, 12.0) if scene in ("crossing", "overlook", "avenue") else ():
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
    empty = back.copy()
    empty.paste(front, mask=front)
    return back, front, empty, cover
