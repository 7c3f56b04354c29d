"""Feature stores with planted anomalies, written as an extraction writes them, without videos or encoders."""

from pathlib import Path

import torch
from safetensors.torch import save

from avad_hf.corpora.splits import with_split_columns
from avad_hf.features.store import FACTS, INDEX, RECIPE, feature_file, json_line, write_file

CLIP_LENGTH, FPS = 32, 25


def recipe(**changes) -> dict:
    """What a store says of its making; some encoder's weights are `weights_sha256`."""
    return {
        "processor": {"clip_stride": CLIP_LENGTH, "size": 64},
        "video_encoder": {"config": {"num_frames": CLIP_LENGTH}, "dtype": "float32", "weights_sha256": "a" * 64},
        "audio_encoder": {"config": {}, "dtype": "float32", "weights_sha256": "b" * 64},
        "notices": [],
        "versions": {},
        "visual_dtype": "float16",
        "audio_dtype": "float32",
    } | changes


# Of an AvrlProcessor that reads 4 frames of 16 x 16 pixels.
VIDEOS_PROCESSOR = {
    "processor_class": "AvrlProcessor",
    "num_frames": 4,
    "size": [16, 16],
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
}


def plant_videos(
    directory: Path,
    num_videos: int = 48,
    classes: tuple[str, ...] = ("arrest", "fight", "normal1", "normal2"),
    signal: float = 60.0,
    split: str | None = None,
    seed: int = 0,
) -> Path:
    """Write a store of frames and sound. Of four classes sight tells the first two from the others, and sound each
    second one from its neighbour, so that only both together tell all of them; every fifth video is silent.
    """
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(num_videos):
        number = index % len(classes)
        frames = 100 + 20 * torch.randn(4, 3, 16, 16, generator=rng)
        frames[:, 0, :, :8] += signal * (number // 2)
        count = int(torch.randint(20, 41, (), generator=rng)) * (index % 5 != 4)
        log_mel = torch.randn(count, 64, generator=rng)
        log_mel[:, :16] += signal / 20 * (number % 2)
        row = {
            "id": f"video/{index:04d}",
            "label": classes[number],
            "anomaly": int(not classes[number].startswith("normal")),
            "scene": None,
            "split": split,
            "frame_mask": None,
            "dark": bool(index % 3 == 0),
            "duration": 4.0,
            "fps": FPS,
            "warnings": [],
            "num_clips": 1,
            "has_audio": bool(count),
        }
        row["file"] = feature_file(row["id"])
        tensors = {
            "frames": frames.clamp(0, 255).round().to(torch.uint8),
            "log_mel": log_mel,
            "clip_times": torch.tensor([[0.0, 4.0]], dtype=torch.float64),
        }
        write_file(directory / row["file"], save(tensors, {FACTS: json_line({"id": row["id"]})}))
        rows.append(row)
    if split is None:
        rows = with_split_columns(rows)
    made = {"processor": VIDEOS_PROCESSOR, "notices": [], "versions": {}}
    write_file(directory / RECIPE, json_line(made | {"visual_dtype": "uint8", "audio_dtype": "float32"}).encode())
    write_file(directory / INDEX, "".join(json_line(row) + "\n" for row in rows).encode())
    return directory


def plant(
    directory: Path,
    num_videos: int = 40,
    shape: tuple[int, ...] = (6, 2, 3),
    steps: int = 8,
    audio_size: int = 5,
    clips: tuple[int, int] = (1, 6),
    signal: float = 2.0,
    scenes: tuple[str, ...] = ("street",),
    classes: tuple[str, ...] = ("horse", "bus"),
    share: float = 0.5,
    frame_masks: bool = True,
    seed: int = 0,
    recipe_of: dict | None = None,
    senses: tuple[str, ...] = ("seen", "heard"),
) -> Path:
    """Write a store. One clip of each anomalous video holds the anomaly: in the picture, and as a jump in the sound.

    Args:
        shape: Of a clip's map: channels, rows, columns.
        steps: Sound steps of a clip.
        clips: Fewest and most clips of a video.
        signal: How much it stands out of noise of standard deviation 1.
        share: Of anomalous videos.
        senses: By which of them it stands out.
    """
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(num_videos):
        anomalous = index < share * num_videos
        count = int(torch.randint(clips[0], clips[1] + 1, (), generator=rng))
        visual = torch.randn(count, *shape, generator=rng)
        audio = torch.randn(count, steps, audio_size, generator=rng)
        where = int(torch.randint(count, (), generator=rng))
        if anomalous:
            visual[where, 0] += signal * ("seen" in senses)
            audio[where, steps // 2 :, 0] += signal * ("heard" in senses)
        times = torch.arange(count + 1, dtype=torch.float64) * CLIP_LENGTH / FPS
        # The last clip is not full.
        num_frames = count * CLIP_LENGTH - 5
        mask = [
            int(anomalous and where * CLIP_LENGTH <= frame < (where + 1) * CLIP_LENGTH) for frame in range(num_frames)
        ]
        scene = scenes[index % len(scenes)]
        row = {
            "id": f"{scene}/{index:04d}",
            "label": classes[index % len(classes)] if anomalous else "normal",
            "anomaly": int(anomalous),
            "scene": scene,
            "split": None,
            "frame_mask": mask if frame_masks else None,
            "duration": num_frames / FPS,
            "fps": FPS,
            "warnings": [],
            "num_clips": count,
            "has_audio": True,
        }
        row["file"] = feature_file(row["id"])
        features = {
            "visual_features": visual.half(),
            "audio_features": audio,
            "clip_times": torch.stack([times[:-1], times[1:]], dim=1),
        }
        write_file(directory / row["file"], save(features, {FACTS: json_line({"id": row["id"]})}))
        rows.append(row)
    rows = with_split_columns(rows)
    write_file(directory / RECIPE, json_line(recipe_of or recipe()).encode())
    write_file(
        directory / INDEX, "".join(json_line(row) + "\n" for row in sorted(rows, key=lambda r: r["id"])).encode()
    )
    return directory
