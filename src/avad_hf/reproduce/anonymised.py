"""Table V of AVACA's paper on drawn streets: the same videos with faces and plates, and without, one detector each.

The demonstration needs no corpus. Streets of the synthetic world are enlarged, their people get drawn faces and their
vehicles drawn plates; the anonymiser writes each video again; and AVACA is trained and tested on both kinds of copies,
on the exact same splits. Nothing in it is real: it says that anonymising works, and what it costs there.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import ProcessorMixin

from avad_hf.anonymise.choosing import Choice
from avad_hf.anonymise.folder import anonymise_videos, tasks_of
from avad_hf.corpora.manifest import write_manifest
from avad_hf.corpora.splits import assign_splits, split_column
from avad_hf.corpora.synthetic import rows_of
from avad_hf.synthetic.recognisable import render_recognisable
from avad_hf.synthetic.stage import ClipPlan
from avad_hf.synthetic.world import plan_world

from .avaca import SEEDS, table_v
from .protocol import Protocol, held, load, write_tables

# The scene whose things are largest, and how much its pictures are enlarged: to 1280 x 720, where faces are 45 to 65
# pixels high and plates 60 to 75 wide.
SCENE, ZOOM = "avenue", 8


@held
def reproduce_anonymised(
    processor: ProcessorMixin,
    output_dir: str | os.PathLike,
    *,
    num_videos: int = 60,
    data_dir: str | os.PathLike | None = None,
    choice: Choice | None = None,
    profile: str | None = None,
    seeds: Sequence[int] = SEEDS,
    settings: dict[str, Any] | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> str:
    """Draw streets with faces and plates, anonymise them, and compare detectors on both.

    Args:
        processor: Makes the features: frozen encoders, on their device.
        output_dir: Folder of all stages and of ``tables.md``; what is there is not done again.
        num_videos: Videos.
        data_dir: Where they are drawn; by default in the output folder.
        choice: What is hidden, and how; faces and plates by default.
        profile: Training profile; the default one by default.
        seeds: One split each.
        settings: Training settings, which count before the profile's.
        on_stage: Told in words what is done next.

    Returns:
        The table as Markdown, and what was hidden.

    Raises:
        ValueError: If videos cannot be read, or the folder holds other runs.
    """
    protocol = Protocol(Path(output_dir), profile or "default", dict(settings or {}), seeds, on_stage)
    place = Path(data_dir or protocol.output_dir / "videos")
    raw, hidden = place / "raw", place / "anonymised"
    plans = plan_world(SCENE, num_videos)
    on_stage("videos with faces and plates")
    raw.mkdir(parents=True, exist_ok=True)
    for plan in plans:
        if not (path := raw / f"{plan.stem}.mp4").is_file():
            render_recognisable(plan, path, ZOOM)
    on_stage("videos without them")
    paths = [str(raw / f"{plan.stem}.mp4") for plan in plans]
    done = anonymise_videos(
        tasks_of({path: path for path in paths}, raw), hidden, choice or Choice(), on_stage=on_stage
    )
    if done.failed:
        raise ValueError(f"Some videos cannot be anonymised: {done.failed}")
    stores = [protocol.features(folder.name, _listed(plans, folder, seeds), processor) for folder in (raw, hidden)]
    return write_tables(protocol, [table_v(protocol, stores[1], stores[0], [SCENE]), _hidden(done.reports)])


def _listed(plans: Sequence[ClipPlan], folder: Path, seeds: Sequence[int]) -> Any:
    """The videos of a folder as a corpus, by the manifest that is written beside them."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        rows = [row | {"anomaly": int(row["label"] != "normal")} for row in rows_of(plans, folder)]
        # Sixty videos have three of each kind of anomaly: divided kind by kind, none would be left to validate on.
        alike = [row | {"split": None, "label": "anomalous" if row["anomaly"] else "normal"} for row in rows]
        splits = {split_column(seed): assign_splits(alike, seed) for seed in seeds}
        named = [row | {name: of[number] for name, of in splits.items()} for number, row in enumerate(rows)]
        write_manifest(named, manifest)
    return load("manifest", data_dir=manifest)


def _hidden(reports: dict[str, dict[str, Any]]) -> str:
    """How much was hidden, over all videos."""
    kinds = {kind for report in reports.values() for kind in report["found"]}
    lines = ["| hidden | share of the pictures | share of the area |", "|---|---|---|"]
    total = sum(report["pictures"] for report in reports.values())
    for kind in sorted(kinds):
        shares = [
            sum(report["pictures"] * report["found"][kind][name] for report in reports.values()) / total
            for name in ("pictures_with", "area")
        ]
        lines.append(f"| {kind} | {shares[0]:.3f} | {shares[1]:.4f} |")
    return f"## What was hidden in {len(reports)} drawn videos\n\n" + "\n".join(lines)


__all__ = ["reproduce_anonymised"]
