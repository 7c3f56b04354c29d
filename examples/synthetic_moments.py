"""Short moments of synthetic videos with what they show: what synthetic_encoders.py teaches from.

python examples/synthetic_moments.py work [number of videos a scene]
"""

import random
import sys
from pathlib import Path

import torch
from torch import Tensor

import avad_hf
from avad_hf import VggishFeatureExtractor
from avad_hf.media.sources import open_media

SCENES = ("crossing", "underpass", "overlook")
WORLD = 100  # which no test, table or demo uses


def videos(work: Path, num_videos: int = 600) -> list[dict]:
    """All rows of the three scenes, in an order that says nothing."""
    options = {"data_dir": work, "num_videos": num_videos, "world_seed": WORLD}
    rows = [row for s in SCENES for part in avad_hf.load_dataset("synthetic", s, **options).values() for row in part]
    random.shuffle(rows)
    return rows


def clips(rows: list[dict]) -> tuple[Tensor, Tensor]:
    """Two stretches of 32 frames of each video, the first with the anomaly if there is one; classes they show."""
    pictures, labels = [], []
    for row in rows:
        shown = torch.tensor(row["frame_mask"]).unfold(0, 32, 1).sum(dim=1)
        with open_media(row["video"]) as media:
            frames = torch.stack([frame.pixels for frame in media.frames(64)])
        for least in (min(24, shown.max()), 0):
            start = random.choice((shown >= least).nonzero().flatten().tolist())
            pictures.append(frames[start : start + 32])
            labels.append(row["label"] if shown[start] >= 8 else 0)
    return torch.stack(pictures), torch.tensor(labels)


def seconds(rows: list[dict]) -> tuple[Tensor, Tensor]:
    """Log-mel of a second every 0.3 s; classes that are heard in three tenths of it or more."""
    extractor, sounds, labels = VggishFeatureExtractor(), [], []
    for row in rows:
        mask, fps = torch.tensor(row["frame_mask"]).float(), row["fps"]
        ends = torch.arange(0.5, len(mask) / fps, 0.3).tolist()
        with open_media(row["video"]) as media:
            track = media.sound(16000)
            sounds.append(extractor.log_mel(torch.stack([track.window(end, 1.0) for end in ends]))[:, :96].half())
        labels += [row["label"] * int(mask[max(0, int((t - 1) * fps)) : int(t * fps)].mean() >= 0.3) for t in ends]
    return torch.cat(sounds), torch.tensor(labels)


if __name__ == "__main__":
    rows = videos(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 600)
    for name, (inputs, labels) in (("clips", clips(rows)), ("seconds", seconds(rows))):
        print(f"{name}: {tuple(inputs.shape)}, {int((labels > 0).sum())} of them anomalous")
