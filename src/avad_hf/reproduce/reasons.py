"""Whether a detector of normality gives the right reasons, on drawn streets where they are known, and the protocol.

Videos. The anomalous videos of the crossing of `normal_footage.TESTED_WORLD`, each three times: as they are; only
heard, with the pictures of the same moments without the event; only seen, without the event's sound.

Detector. Nearest neighbours, as `avad_hf.fit` makes it of the normal videos of the crossing of the other world. A
threshold as rare as one of 100 normal clips. An event is found if it overlaps the drawn one.

Figures. Of the videos that are only heard, or only seen, whose event is found: how many have the larger share for the
right sense. Of the videos as they are, and those that are only seen: how many have the peak of the heat map within
the box of all pixels that the event changes in that clip. The highest event of a video counts. With 95% intervals
(Wilson).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForVideoClassification, ProcessorMixin, pipeline

from avad_hf.synthetic import sounds
from avad_hf.synthetic.stage import ClipPlan
from avad_hf.synthetic.world import clip_pictures, clip_sound, plan_world

SCENE = "crossing"
# Score of what is as rare as one of 100 normal clips: 2 / (1 + 2).
THRESHOLD = 2 / 3
KINDS = ("as drawn", "only heard", "only seen")
# A pixel belongs to the event if one of its colours changes by more than this; the encoding of no file is between.
CHANGE = 12


@dataclass
class Count:
    """How often something was right.

    Args:
        right: How often.
        total: Out of how many.
    """

    right: int = 0
    total: int = 0

    def add(self, is_right: bool) -> None:
        """Count one more."""
        self.right += is_right
        self.total += 1

    def __str__(self) -> str:
        if not self.total:
            return "none"
        n, z = self.total, 1.96
        share = self.right / n
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return f"{self.right} of {n} ({share:.2f} [{middle - half:.2f}, {middle + half:.2f}])"


def videos(plan: ClipPlan) -> Iterator[tuple[str, dict[str, Any], np.ndarray]]:
    """Each kind of a video, as the pipeline takes it, and which pixels the event changes, of shape `(F, H, W)`."""
    whole, empty = (np.stack([picture for _, picture in clip_pictures(plan, event)]) for event in (True, False))
    changed = np.abs(whole.astype(int) - empty).max(-1) > CHANGE
    others, event = clip_sound(plan)
    for kind, frames, sound in (
        (KINDS[0], whole, others + event),
        (KINDS[1], empty, others + event),
        (KINDS[2], whole, others),
    ):
        arrays = {"frames": frames, "fps": plan.fps, "sampling_rate": sounds.RATE_HZ}
        yield kind, arrays | {"waveform": np.tanh(sound).astype(np.float32)}, changed


def is_within(heat: dict[str, Any], changed: np.ndarray, fps: float) -> bool | None:
    """Whether the peak of a heat map is in the box of what changes in its clip; ``None`` if nothing does."""
    mask = changed[int(heat["start"] * fps) : math.ceil(heat["end"] * fps)].any(axis=0)
    if not mask.any():
        return None
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    x, y = heat["peak"][0] * width, heat["peak"][1] * height
    return bool(columns.min() <= x <= columns.max() + 1 and rows.min() <= y <= rows.max() + 1)


def reasons(
    model_dir: Path, processor: ProcessorMixin, num_videos: int, world: int, on_stage: Callable[[str], None]
) -> str:
    """The table of this module, as Markdown.

    Args:
        model_dir: The fitted detector.
        processor: What made the features that it was fitted to.
        num_videos: Videos of the scene in that world.
        world: Its seed.
        on_stage: Told in words what is done next.
    """
    model = AutoModelForVideoClassification.from_pretrained(model_dir)
    detect = pipeline("audio-visual-anomaly", model=model, processor=processor, threshold=THRESHOLD, explain=True)
    found = {kind: Count() for kind in KINDS}
    senses = {kind: Count() for kind in KINDS[1:]}
    places = {kind: Count() for kind in (KINDS[0], KINDS[2])}
    plans = [plan for plan in plan_world(SCENE, num_videos, world) if plan.event_start_s is not None]
    for number, plan in enumerate(plans, 1):
        on_stage(f"reasons: video {number} of {len(plans)}")
        for kind, video, changed in videos(plan):
            events = [
                event
                for event in detect(video)["events"]
                if event["start"] < plan.event_end_s and event["end"] > plan.event_start_s
            ]
            found[kind].add(bool(events))
            if not events:
                continue
            why = max(events, key=lambda event: event["score"])["why"]
            if kind in senses:
                senses[kind].add((why["sound"] > why["sight"]) == (kind == "only heard"))
            within = is_within(why["heat"], changed, plan.fps) if kind in places and "heat" in why else None
            if within is not None:
                places[kind].add(within)
    lines = ["| videos | events found | right sense | peak of the heat map in the event's box |", "|---|---|---|---|"]
    for kind in KINDS:
        lines.append(f"| {kind} | {found[kind]} | {senses.get(kind, '')} | {places.get(kind, '')} |")
    return "\n".join(lines)


__all__ = ["reasons"]
