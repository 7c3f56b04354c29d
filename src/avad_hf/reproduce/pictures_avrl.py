"""Pictures of the AVRL paper: what is seen beside what is heard, confusions, hidden parts, and what hiding costs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from avad_hf.disks import writing
from avad_hf.features.dataset import FeatureDataset
from avad_hf.files import shown, written_whole

# Frames of a video that are shown, evenly spread.
FRAMES_SHOWN = 5
# Videos that are shown beside their sound: SHADE's nine classes fill a page, and more names are no picture.
MOST_VIDEOS = 12
DOTS_PER_INCH = 130


def stored_frames(videos: FeatureDataset, index: int) -> tuple[Tensor, Tensor]:
    """What a store of whole videos holds of one: frames of shape `(F, 3, H, W)`, uint8, and log-mel frames."""
    read: list[Tensor] = []

    def keep(_: int, frames: Tensor) -> Tensor:
        read.append(frames)
        return frames

    log_mel = videos.with_frames(keep)[index]["input_features"]
    return read[0], log_mel


def draw_samples(videos: FeatureDataset, hop_s: float, path: Path) -> None:
    """Figure 1: some frames of a video of each class, and the spectrogram of its sound.

    The paper also draws the waveform, which a store does not hold.

    Args:
        videos: The first video of each class that has sound is drawn, or the first if none has.
        hop_s: Seconds from one log-mel frame to the next.
        path: PNG file to write.
    """
    first: dict[str, int] = {}
    for number, row in sorted(enumerate(videos.rows), key=lambda item: not item[1]["has_audio"]):
        first.setdefault(row["label"], number)
    chosen = sorted(first.items())[:MOST_VIDEOS]
    with _picture(path, 9, 0.4 + 1.15 * len(chosen)) as picture:
        grid = picture.add_gridspec(len(chosen), FRAMES_SHOWN + 2)
        for place, (label, number) in enumerate(chosen):
            frames, log_mel = stored_frames(videos, number)
            for column, frame in enumerate(np.linspace(0, len(frames) - 1, FRAMES_SHOWN).round().astype(int)):
                axes = picture.add_subplot(grid[place, column])
                _show(axes, frames[frame])
                if column == 0:
                    axes.set_ylabel(shown(label), fontsize=9, parse_math=False)
            axes = picture.add_subplot(grid[place, FRAMES_SHOWN:])
            axes.tick_params(labelsize=7)
            axes.set_yticks([])
            if len(log_mel):
                seconds = hop_s * len(log_mel)
                axes.imshow(log_mel.T.numpy(), origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, 1))
            else:
                axes.set_xticks([])
                axes.text(0.5, 0.5, "no sound", ha="center", va="center", transform=axes.transAxes)
            if place == 0:
                axes.set_title("log-mel spectrogram", fontsize=9)
        axes.set_xlabel("time (s)", fontsize=8)


def draw_confusions(matrices: Mapping[str, np.ndarray], names: Sequence[str], path: Path) -> None:
    """Figure 4: what the videos of each class are called by several detectors, side by side.

    Args:
        matrices: Counts of shape `(N, N)` by the detector's name: rows are what videos are, columns what they are
            called.
        names: Names of the classes.
        path: PNG file to write.
    """
    side = 1.2 + 0.2 * len(names)
    places, names = np.arange(len(names)), [shown(name) for name in names]
    with _picture(path, 0.9 + side * len(matrices), side + 0.9) as picture:
        panels = picture.subplots(1, len(matrices), sharey=True, squeeze=False)[0]
        for axes, (title, matrix) in zip(panels, matrices.items(), strict=True):
            shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            axes.set_xticks(places, names, rotation=90, fontsize=7, parse_math=False)
            axes.set_yticks(places, names, fontsize=7, parse_math=False)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("called", fontsize=8)
        panels[0].set_ylabel("is", fontsize=8)
        picture.colorbar(drawn, ax=panels, label="share of the class", fraction=0.02, pad=0.01)


def draw_hidden(examples: Mapping[str, Mapping[float, Tensor]], path: Path) -> None:
    """Figure 5: some frames of a video with parts of it hidden.

    Args:
        examples: Frames of shape `(F, 3, H, W)`, uint8, by what is hidden and by its share.
        path: PNG file to write.
    """
    rows = [(kind, ratio, frames) for kind, by_ratio in examples.items() for ratio, frames in by_ratio.items()]
    with _picture(path, 1.4 * FRAMES_SHOWN + 1.4, 0.2 + 1.2 * len(rows)) as picture:
        panels = picture.subplots(len(rows), FRAMES_SHOWN, squeeze=False)
        for row, (kind, ratio, frames) in zip(panels, rows, strict=True):
            numbers = np.linspace(0, len(frames) - 1, FRAMES_SHOWN).round().astype(int)
            for axes, number in zip(row, numbers, strict=True):
                _show(axes, frames[number])
            row[0].set_ylabel(f"{kind}\n{ratio:.0%}", fontsize=8)


def draw_costs(
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    overall: Mapping[str, Sequence[float]],
    heard: float,
    ratios: Sequence[float],
    path: Path,
) -> None:
    """Figure 6: accuracy by the share that is hidden.

    Args:
        curves: Top-1 accuracy by class, for each ratio, by what is hidden.
        overall: Top-1 accuracy of all videos likewise.
        heard: Top-1 accuracy of all videos by sound alone.
        ratios: Shares that are hidden.
        path: PNG file to write.
    """
    with _picture(path, 10, 4.8) as picture:
        panels = picture.subplots(1, len(curves), sharey=True)
        for axes, (title, by_ratio) in zip(panels, curves.items(), strict=True):
            for name in by_ratio[0]:
                values = [recalls[name] for recalls in by_ratio]
                axes.plot(ratios, values, marker=".", linewidth=1, alpha=0.8, label=name)
            axes.plot(ratios, overall[title], "k", linewidth=2.6, label="all videos")
            axes.axhline(heard, color="0.3", linestyle="--", label="all videos, sound alone")
            axes.set(title=title, xlabel="share that is hidden", xticks=ratios, ylim=(-0.02, 1.02))
            axes.grid(color="0.92")
        panels[0].set_ylabel("top-1 accuracy")
        picture.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)


@contextmanager
def _picture(path: Path, width: float, height: float) -> Iterator[Any]:
    """A picture of some inches, which is written as a PNG file when all is drawn."""
    # Not pyplot: it keeps state, and may look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(picture)
    yield picture
    with writing(path, "The figure"), written_whole(path) as partial:
        picture.savefig(partial, dpi=DOTS_PER_INCH, format="png")


def _show(axes: Any, frame: Tensor) -> None:
    """Draw a frame of shape `(3, H, W)`, uint8."""
    axes.imshow(frame.permute(1, 2, 0).numpy())
    axes.set(xticks=[], yticks=[])


__all__ = ["draw_confusions", "draw_costs", "draw_hidden", "draw_samples", "stored_frames"]
