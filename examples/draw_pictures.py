"""Make the pictures of the README again, from drawn videos and the demonstration model.

python examples/draw_pictures.py examples/guides/pictures [number of videos a scene] [chromium]

Writes timeline.png and overlay.png and, if the command of a browser is given, report.png: the report as the browser
shows it. About a minute on two cores.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from avad_hf.demo import demonstrate
from avad_hf.media.sources import open_media

WIDTH = 900  # pixels; a README shows no more
REPORT_SIZE = (1000, 985)  # pixels of the window of the browser: the page down to what videos are called


def save(picture: Image.Image, path: Path) -> None:
    """With 128 colours, which halves the file and cannot be seen in a plot."""
    scale = min(1.0, WIDTH / picture.width)
    small = picture.convert("RGB").resize((round(scale * picture.width), round(scale * picture.height)))
    small.quantize(128).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def frame_at(video: Path, time_s: float) -> Image.Image:
    """The picture of a video that is shown at a time."""
    with open_media(str(video)) as media:
        frame = next(frame for frame in media.frames(None) if frame.end > time_s)
    return Image.fromarray(frame.pixels.permute(1, 2, 0).contiguous().numpy())


def main(folder: str, num_videos: str = "16", browser: str = "") -> None:
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        demonstrate(work, num_videos=int(num_videos))
        video, result = next(iter(json.loads(Path(work, "results.json").read_text()).items()))
        stem = Path(video).stem
        save(Image.open(Path(work, f"{stem}.png")), place / "timeline.png")
        peak = max(result["clips"], key=lambda clip: clip["score"])
        middle = (peak["start"] + peak["end"]) / 2
        save(frame_at(Path(work, f"{stem}-overlay.mp4"), middle), place / "overlay.png")
        if browser:
            shot, page = Path(work, "shot.png"), Path(work, "report.html").resolve().as_uri()
            size = "--window-size={},{}".format(*REPORT_SIZE)
            options = ["--headless", "--no-sandbox", "--hide-scrollbars", size, f"--screenshot={shot}", page]
            subprocess.run([browser, *options], check=True, capture_output=True)
            save(Image.open(shot), place / "report.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
