"""The synthetic world as a corpus: drawn streets with MAVAD's classes, a crowd with SHADE's, and a junction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from avad_hf.synthetic.stage import ClipPlan
from avad_hf.synthetic.world import SCENES, TABLES, gallery, render_world

from .classes import NameTable
from .corpus import CorpusBuilder, CorpusConfig
from .manifest import COLUMNS, read_manifest, write_manifest

# The test videos of a world are those of the world whose seed is this much more.
TEST_WORLDS = 1_000_000


@dataclass
class SyntheticConfig(CorpusConfig):
    """A scene of the synthetic world.

    Args:
        name: Name of the scene.
        data_dir: Where to render it, in a folder of its own; by default in the cache of `datasets`.
        num_videos: How many.
        world_seed: Another number gives other videos. `seed`, as for every corpus, only divides them.
        num_test: Test videos beside these, of world `world_seed` + 1,000,000. Then all `num_videos` are for training:
            a seed takes a quarter of them for validation, and every seed has the same test videos. Without it a seed
            takes the test videos from the `num_videos`.
    """

    num_videos: int = 200
    world_seed: int = 0
    num_test: int | None = None

    @property
    def classes(self) -> NameTable:
        """MAVAD's in the streets, SHADE's in the crowd, and those of the junction."""
        return TABLES[self.name]

    def read(self) -> list[dict[str, Any]]:
        """Render what is not there yet, with a manifest and a contact sheet (gallery.png) beside it, and list it."""
        if self.name == "default":  # what `datasets` calls a configuration that nobody named
            raise ValueError(f"The synthetic world needs the name of a scene: {', '.join(SCENES)}.")
        place = Path(self.data_dir or Path(datasets.config.HF_DATASETS_CACHE) / "avad_hf-synthetic")
        tested = "" if self.num_test is None else f"-test{self.num_test}"
        folder = place / f"{self.name}-{self.num_videos}-seed{self.world_seed}{tested}"
        manifest = folder / "manifest.csv"
        if not manifest.is_file():
            plans = render_world(folder, self.name, self.num_videos, self.world_seed)
            gallery(plans, folder / "gallery.png")
            rows = rows_of(plans, folder)
            if self.num_test is not None:
                plans = render_world(folder / "test", self.name, self.num_test, self.world_seed + TEST_WORLDS)
                rows = [row | {"split": "train"} for row in rows] + [
                    row | {"split": "test", "id": f"test_{row['id']}"} for row in rows_of(plans, folder / "test")
                ]
            write_manifest(rows, manifest)
        return read_manifest(manifest)


def rows_of(plans: Sequence[ClipPlan], folder: Path) -> list[dict[str, Any]]:
    """Rows of a manifest for drawn videos that lie in a folder, beside which their frame labels are written."""
    rows = []
    for plan in plans:
        video, mask = folder / f"{plan.stem}.mp4", folder / f"{plan.stem}.npy"
        times = np.arange(plan.num_frames) / plan.fps
        if plan.event_start_s is None:
            labels = np.zeros(len(times), dtype=np.uint8)
        else:
            labels = ((plan.event_start_s <= times) & (times < plan.event_end_s)).astype(np.uint8)
        np.save(mask, labels)
        rows.append(
            dict.fromkeys(COLUMNS)
            | {
                "id": plan.stem,
                "video": str(video),
                "label": plan.label,
                "scene": plan.scene,
                "fps": plan.fps,
                "hour": plan.hour,
                "weather": plan.weather,
                "dark": plan.dark,
                "frame_mask": str(mask),
            }
        )
    return rows


class Synthetic(CorpusBuilder):
    """Drawn videos with computed sound. Results on them say nothing about real streets or crowds."""

    BUILDER_CONFIG_CLASS = SyntheticConfig
    BUILDER_CONFIGS = [SyntheticConfig(name=name) for name in SCENES]  # noqa: RUF012
    description = "Synthetic: every picture is drawn and every sound computed. It shows nothing real."
