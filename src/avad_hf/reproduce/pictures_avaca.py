"""What the AVACA paper shows of a corpus: counts and conditions (Figure 1, Tables I, II), and examples (Figure 2)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avad_hf.disks import writing
from avad_hf.files import shown, written_whole
from avad_hf.media.sources import open_media
from avad_hf.media.windows import read_whole
from avad_hf.models.vggish.feature_extraction_vggish import VggishFeatureExtractor

# Videos of Table I, by class: of Mgarr, Zejtun Scrapyard and Zejtun Field.
PUBLISHED = {
    "normal": (161, 117, 125),
    "pedestrians": (65, 7, 19),
    "pedestrians_crossing": (21, 48, 33),
    "bicycle": (10, 12, 17),
    "bus": (20, 0, 1),
    "exit_side_street": (44, 0, 0),
    "heavy_goods_vehicle": (21, 4, 3),
    "obstruction": (3, 10, 8),
    "u_turn": (1, 9, 6),
    "scooter": (0, 3, 2),
    "horse": (0, 2, 0),
}
PUBLISHED_SCENES = ("mgarr", "zejtun_scrapyard", "zejtun_field")
# Parts of the day that tell how much light there is, by their first hour.
PARTS_OF_DAY = {0: "0 to 5 h", 6: "6 to 11 h", 12: "12 to 17 h", 18: "18 to 23 h"}
# What nobody has written down comes after all else.
NOT_KNOWN, LAST = "not known", 24
# Frames of each video, and their short side in pixels: three of them beside a spectrogram fit on a page.
NUM_FRAMES, SHORT_SIDE = 3, 180
# Inches of a row of the picture, and its dots an inch.
ROW_WIDTH, ROW_HEIGHT, DOTS_PER_INCH = 12.0, 1.7, 100


def corpus_tables(rows: Sequence[dict[str, Any]], scenes: Sequence[str], classes: Sequence[str]) -> str:
    """Videos by class, by their conditions, and how they were recorded, each by scene, as Markdown.

    Args:
        rows: What a feature store knows of the videos.
        scenes: Their scenes, in the order of the columns.
        classes: Names of the classes, in the order of the lines.
    """
    by_scene = {scene: [row for row in rows if row["scene"] == scene] for scene in scenes}

    def counted(title: str, lines: dict[str, list[str]], first: str) -> str:
        head = f"| {first} | " + " | ".join(scenes) + " |\n|---|" + "---|" * len(scenes)
        return f"{title}:\n\n{head}\n" + "\n".join(
            f"| {name} | {' | '.join(cells)} |" for name, cells in lines.items()
        )

    def published(scene: str, name: str) -> str:
        if scene not in PUBLISHED_SCENES:
            return ""
        column = PUBLISHED_SCENES.index(scene)
        count = PUBLISHED[name][column] if name in PUBLISHED else sum(counts[column] for counts in PUBLISHED.values())
        return f" (paper {count})"

    names = [name for name in classes if any(row["label"] == name for row in rows)]
    labels = {
        name: [f"{sum(row['label'] == name for row in by_scene[scene])}{published(scene, name)}" for scene in scenes]
        for name in names
    }
    labels["total"] = [f"{len(by_scene[scene])}{published(scene, 'total')}" for scene in scenes]
    conditions = {
        f"{kind}: {value}": [
            str(sum((kind, order, value) in _conditions(row) for row in by_scene[scene])) for scene in scenes
        ]
        for kind, order, value in sorted({condition for row in rows for condition in _conditions(row)})
    }
    recorded = {
        "frames a second": [_range(row["fps"] for row in by_scene[scene]) for scene in scenes],
        "seconds a video": [_range(row["duration"] for row in by_scene[scene]) for scene in scenes],
        "videos with sound": [str(sum(bool(row["has_audio"]) for row in by_scene[scene])) for scene in scenes],
    }
    return "\n\n".join(
        [
            "## The corpus",
            counted("Videos by class (Table I)", labels, "class"),
            counted("Videos by part of the day, light and weather (Figure 1)", conditions, "condition"),
            counted("How they were recorded (Table II)", recorded, "what"),
        ]
    )


def _conditions(row: dict[str, Any]) -> list[tuple[str, int, str]]:
    """What a manifest says of hour, light and weather: the kind, the place among its kind, and the name."""
    hour, dark, weather = (row.get(name) for name in ("hour", "dark", "weather"))
    begin = None if hour is None else int(hour) // 6 * 6
    # A name that somebody wrote could end a cell of a table.
    sky = None if weather is None else shown(str(weather)).replace("|", "/")
    return [
        ("hour", LAST if begin is None else begin, PARTS_OF_DAY.get(begin, NOT_KNOWN)),
        ("light", LAST if dark is None else int(dark), {False: "bright", True: "dark"}.get(dark, NOT_KNOWN)),
        ("weather", LAST if sky is None else 0, sky or NOT_KNOWN),
    ]


def _range(values: Any) -> str:
    low_high = sorted(round(value, 1) for value in values)
    if not low_high:
        return ""
    low, high = low_high[0], low_high[-1]
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def draw_examples(rows: Sequence[dict[str, Any]], classes: Sequence[str], path: Path, title: str) -> None:
    """Draw frames of the first video of each class, evenly spread, and the log-mel spectrogram of its sound.

    Args:
        rows: Videos of one scene, in the order of their ids, each with its ``video``.
        classes: Names of the classes, in the order of the lines.
        path: The PNG to write; one that is there is left as it is.
        title: Written above.

    Raises:
        MediaError: If a video cannot be read.
    """
    if path.is_file():
        return
    # Not pyplot: it keeps state, and may look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = {row["label"]: row for row in reversed(rows)}
    examples = [first[name] for name in classes if name in first]
    figure = Figure(figsize=(ROW_WIDTH, ROW_HEIGHT * len(examples) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(shown(title), fontsize=10)
    panels = figure.subplots(len(examples), NUM_FRAMES + 1, squeeze=False, width_ratios=[1] * NUM_FRAMES + [1.5])
    extractor = VggishFeatureExtractor()
    for (*frames, spectrum), row in zip(panels, examples, strict=True):
        with open_media(row) as media:
            window = read_whole(media, NUM_FRAMES, SHORT_SIDE, extractor.sampling_rate)
        for axes, pixels in zip(frames, window.frames, strict=True):
            axes.imshow(pixels.permute(1, 2, 0).numpy())
            axes.set(xticks=[], yticks=[])
        frames[0].set_ylabel(shown(row["label"]), fontsize=8)
        spectrum.tick_params(labelsize=7)
        log_mel = np.empty((0, 0)) if window.sound is None else extractor.log_mel(window.sound).numpy()
        if not log_mel.size:
            spectrum.set(xticks=[], yticks=[])
            spectrum.text(0.5, 0.5, "no sound", ha="center", va="center", transform=spectrum.transAxes, fontsize=8)
            continue
        seconds = len(log_mel) * extractor.hop_length / extractor.sampling_rate
        spectrum.imshow(log_mel.T, origin="lower", aspect="auto", extent=(0, seconds, 0, log_mel.shape[1]))
        spectrum.set_ylabel("mel band", fontsize=7)
    panels[-1][-1].set_xlabel("seconds", fontsize=7)
    with writing(path, "The picture of examples"), written_whole(path) as partial:
        figure.savefig(partial, format="png", dpi=DOTS_PER_INCH)


__all__ = ["corpus_tables", "draw_examples"]
