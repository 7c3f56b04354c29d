"""Detectors compared on drawn scenes: which scenes, which detectors, and how large. The protocol is fixed here.

Data. Of each scene 200 drawn videos to learn from, a quarter of which is validation by the seed, and 200 others, from
another seed of the world, that all seeds are tested on. At the junction there are 600 to learn from: with 200 every
head that joins the senses learns its training videos by heart. That was found on the training videos of worlds 0, 100
and 101; the world of the figures is 1.

Features. The encoders of the demonstration model, which learnt on other drawn videos: what they see and hear of these
scenes says nothing of real ones. Each channel has mean 0 and deviation 1 over the training videos, for all detectors:
as they come, the channels that tell what passes at the junction are small beside others, and no head learns them.

Detectors. All that learn from labels of videos, reading both senses, and two that know normal videos alone. Their
videos have eight clips at most, so that those that resample a video to segments have eight; AVACA has the widths of
the demonstration model. Everything else is what `avad_hf.compare` gives to all.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import AutoProcessor

from avad_hf.detection.pipeline import DEMO_MODEL
from avad_hf.processes import process_state

from .protocol import Protocol, load

SCENES = ("crossing", "underpass", "overlook", "avenue", "junction")
# Videos to learn from, and to test. At the junction 600: there are 12 kinds of abnormal pairs, and each has 25 then.
NUM_LEARNT = dict.fromkeys(SCENES, 200) | {"junction": 600}
NUM_TESTED = 200
STANDARDISE = True
# While the scenes were made, test videos of world 0 were looked at.
WORLD_SEED = 1
DETECTORS = (
    "avaca:hidden_size=32:intermediate_size=64",
    "arnet:inputs=both",
    "mist:inputs=both:num_parts=8",
    "rtfm:inputs=both:num_segments=8",
    "s3r:inputs=both:num_segments=8",
    "urdmu:inputs=both:num_segments=8",
    "bnwvad:inputs=both:num_segments=8",
    "macilsd",
    "gaussian",
    "knn",
)


def drawn_features(
    output_dir: str | os.PathLike,
    *,
    scenes: Sequence[str] | None = None,
    data_dir: str | os.PathLike | None = None,
    num_videos: int | None = None,
    world_seed: int = WORLD_SEED,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Path:
    """Draw the scenes, and extract their features; what is there is not done again.

    Args:
        output_dir: Folder of the comparison; features go to ``features`` in it.
        scenes: Scenes of the synthetic world; `SCENES` by default, and for ``("each",)``.
        data_dir: Where videos are drawn; by default in the output folder.
        num_videos: Videos of a scene to learn from, and as many to test; by default `NUM_LEARNT` and `NUM_TESTED`.
        world_seed: Seed of the drawn videos.
        on_stage: Told in words what is done next.

    Returns:
        The feature store.
    """
    chosen = SCENES if not scenes or list(scenes) in (["each"], ["all"]) else scenes
    place = Path(data_dir or Path(output_dir) / "videos")
    processor = AutoProcessor.from_pretrained(DEMO_MODEL, trust_remote_code=False).to(process_state().device)
    protocol = Protocol(Path(output_dir), "few", on_stage=on_stage)
    for scene in chosen:
        on_stage(f"videos of {scene}")
        rows = load(
            "synthetic",
            scene,
            data_dir=place,
            num_videos=num_videos or NUM_LEARNT[scene],
            num_test=num_videos or NUM_TESTED,
            world_seed=world_seed,
        )
        store = protocol.features(f"drawn-{num_videos or NUM_TESTED}-seed{world_seed}", rows, processor)
    return store


__all__ = ["DETECTORS", "SCENES", "STANDARDISE", "drawn_features"]
