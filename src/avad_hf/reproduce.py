"""The tables of the AVACA paper (section V), run as published: features, training, evaluation, Markdown.

Every stage stays in the output folder and is not done again: features by video, trained detectors by epoch,
evaluations whole.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import AutoModelForVideoClassification, ProcessorMixin

from avad_hf.data.classes import MAVAD_SCENES
from avad_hf.data.extraction import extract_features, process_state
from avad_hf.data.features import FeatureDataset
from avad_hf.data.loading import load_dataset
from avad_hf.data.splits import SEEDS
from avad_hf.evaluation.evaluate import evaluate
from avad_hf.media.encode import written_whole
from avad_hf.training.config import TrainingConfig
from avad_hf.training.loop import train

AUDIO_PATHS = ("zeroed", "focused", "plain")
STREETS = ("crossing", "underpass", "overlook")
# Of detectors of the synthetic world, as the demonstration model has them: the videos are few and their maps small.
SYNTHETIC_WIDTHS = {"hidden_size": 32, "intermediate_size": 64}
# AUC in per cent as published, mean and standard deviation over three splits (Tables III and V); Table IV.
PAPER = {
    ("mgarr", "zeroed"): "87.91 ± 3.47",
    ("mgarr", "focused"): "89.76 ± 1.33",
    ("mgarr", "plain"): "88 ± 1.82",
    ("zejtun_scrapyard", "zeroed"): "63.18 ± 5.85",
    ("zejtun_scrapyard", "focused"): "64.10 ± 6.07",
    ("zejtun_scrapyard", "plain"): "64.69 ± 4.4",
    ("zejtun_field", "zeroed"): "76.58 ± 13.09",
    ("zejtun_field", "focused"): "80.45 ± 9.73",
    ("zejtun_field", "plain"): "78.6 ± 6.82",
    ("mgarr", "raw"): "91.49 ± 1.29",
    ("zejtun_scrapyard", "raw"): "66.5 ± 4.61",
    ("zejtun_field", "raw"): "80.29 ± 9.01",
}
SHANGHAITECH = {
    "AR-Net": 91.24,
    "AVACA (paper)": 93.79,
    "MIST": 94.83,
    "RTFM": 97.21,
    "S3R": 97.48,
    "SSRL": 97.98,
    "PEL4VAD": 98.14,
}


@dataclass(frozen=True)
class Figure:
    """One cell of a table: the same figure over several splits.

    Args:
        values: By split, between 0 and 1; NaN where not defined.
        published: The paper's, in per cent; empty if it has none.
    """

    values: list[float]
    published: str = ""

    def __str__(self) -> str:
        values = 100 * np.array(self.values)
        if np.isnan(values).any():
            return "not defined"
        spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
        return f"{values.mean():.2f}{spread}" + (f" (paper {self.published})" if self.published else "")


@dataclass(frozen=True)
class Protocol:
    """What is trained and how, in all cells of a table.

    Args:
        output_dir: Of all stages.
        profile: Of training.
        settings: Of training, counting before the profile's.
        seeds: Of splits and weights.
        on_stage: Told in words what is done next.
    """

    output_dir: Path
    profile: str
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = SEEDS
    on_stage: Callable[[str], None] = lambda stage: None

    def features(self, name: str, rows: Any, processor: ProcessorMixin) -> Path:
        """Extract a corpus, or what is missing of it."""
        store = self.output_dir / "features" / name
        self.on_stage(f"features of {name}")
        with _timed(store.with_suffix(".seconds.json")):
            done = extract_features(rows, processor, store)
        if done.failed:
            failed = "\n".join(f"  {item['id']}: {item['error']}" for item in done.failed[:5])
            raise ValueError(
                f"{len(done.failed)} videos of {name} cannot be read, and a table without them would not be the "
                f"paper's:\n{failed}\nRepair them, or take them off the manifest."
            )
        return store

    def run(self, store: Path, scene: str | None, seed: int, audio_path: str) -> dict[str, Any]:
        """Figures of one detector on its test videos: trained, unless that was done before with the same settings."""
        place = self.output_dir / "runs" / store.name / (scene or "all") / f"{audio_path}-seed{seed}"
        finished = place / "test" / "metrics.json"
        options = self.settings.get("model_options", {}) | {"audio_path": audio_path}
        config = TrainingConfig.from_profile(
            self.profile,
            **self.settings
            | {"data": str(store), "output_dir": str(place), "scene": scene, "split_seed": seed, "seed": seed}
            | {"model_options": options},
        )
        if finished.is_file():
            train(config, resume=True, progress=False)  # which refuses a run with other settings
            return json.loads(finished.read_text(encoding="utf-8"))
        self.on_stage(f"{store.name}, {scene or 'all scenes'}, {audio_path} audio, split {seed}")
        with _timed(place.with_suffix(".seconds.json")):
            train(config, resume=True, progress=False)
            model = AutoModelForVideoClassification.from_pretrained(place).to(process_state().device)
            test = FeatureDataset(store, "test", seed, scene)
            found = evaluate(model, test)
        if process_state().is_main_process:
            found.save(place / "test")
        process_state().wait_for_everyone()
        return found.figures

    def seconds(self) -> float:
        """How long all stages took, those of earlier runs among them."""
        return sum(json.loads(path.read_text()) for path in self.output_dir.rglob("*.seconds.json"))


@contextmanager
def _timed(path: Path):
    """Add the time that something takes to a file, also if it is stopped by an error."""
    begin = time.monotonic()
    try:
        yield
    finally:
        if process_state().is_main_process:
            before = json.loads(path.read_text()) if path.is_file() else 0.0
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as partial:
                Path(partial).write_text(json.dumps(before + time.monotonic() - begin))


def table_iii(protocol: Protocol, store: Path, scenes: Sequence[str], claim: str) -> str:
    """Scenes by audio path, each cell over all splits: AUC of videos, of clips, and of frames if they have labels."""
    cells = {
        (scene, audio_path): [protocol.run(store, scene, seed, audio_path) for seed in protocol.seeds]
        for scene in scenes
        for audio_path in AUDIO_PATHS
    }
    kinds = {
        "Videos, each judged by its highest clip": "video",
        "Clips, each with its video's label": "clip",
        "Frames, each with its own label": "frame",
    }
    parts = []
    for title, kind in kinds.items():
        if any(found[kind] is None for runs in cells.values() for found in runs):
            continue
        lines = ["| scene | zeroed audio | focused audio path | plain audio path |", "|---|---|---|---|"]
        for scene in scenes:
            row = []
            for audio_path in AUDIO_PATHS:
                published = PAPER.get((scene, audio_path), "") if kind == "video" else ""
                row.append(str(Figure(_areas(cells[scene, audio_path], kind), published)))
            lines.append(f"| {scene} | " + " | ".join(row) + " |")
        parts.append(f"{title}, AUC in per cent:\n\n" + "\n".join(lines))
    return f"## Table III: {claim}\n\n" + "\n\n".join(parts)


def table_iv(protocol: Protocol, store: Path) -> str:
    """ShanghaiTech without sound: AUC of frames beside published ones."""
    found = [protocol.run(store, None, seed, "zeroed") for seed in protocol.seeds]
    if any(run["frame"] is None for run in found):
        reason = next(run["undefined"]["frame"] for run in found if run["frame"] is None)
        raise ValueError(f"Table IV counts frames, but {reason}. Put test_frame_mask/ into the corpus's folder.")
    lines = ["| method | AUC of frames, per cent |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in SHANGHAITECH.items()]
    lines.append(f"| AVACA (this run) | {Figure(_areas(found, 'frame'))} |")
    return "## Table IV: ShanghaiTech, weakly supervised, zero audio\n\n" + "\n".join(lines)


def table_v(protocol: Protocol, anonymised: Path, raw: Path, scenes: Sequence[str]) -> str:
    """Raw against anonymised videos, focused audio path."""
    lines = ["| scene | raw | anonymised |", "|---|---|---|"]
    for scene in scenes:
        row = []
        for store, name in ((raw, "raw"), (anonymised, "focused")):
            runs = [protocol.run(store, scene, seed, "focused") for seed in protocol.seeds]
            row.append(str(Figure(_areas(runs, "video"), PAPER.get((scene, name), ""))))
        lines.append(f"| {scene} | " + " | ".join(row) + " |")
    return "## Table V: raw and anonymised videos, AUC of videos in per cent\n\n" + "\n".join(lines)


def _load(*corpus, **options):
    """The main process goes first: it alone renders what is not there yet."""
    with process_state().main_process_first():
        return load_dataset(*corpus, **options)


def _areas(runs: Sequence[dict[str, Any]], kind: str) -> list[float]:
    return [float("nan") if (area := found[kind]["roc_auc"]) is None else area for found in runs]


def reproduce(
    corpus: Literal["mavad", "shanghaitech", "synthetic"],
    processor: ProcessorMixin,
    output_dir: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    profile: str | None = None,
    seeds: Sequence[int] = SEEDS,
    num_videos: int = 200,
    settings: dict[str, Any] | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> str:
    """Run the protocol of the paper on a corpus and write its tables.

    MAVAD: one detector a scene, split and audio path (Table III), and raw beside anonymised copies (Table V).
    ShanghaiTech: the published split with zero audio (Table IV); each seed holds another quarter of the training
    videos out to choose the epoch. The synthetic world: Table III on its three streets.

    What was done before is not done again: a run that was stopped goes on where it was.

    Args:
        corpus: Which one.
        processor: Makes the features: frozen encoders, on their device.
        output_dir: Of all stages, of ``tables.md``, and of each run's checkpoint and figures.
        data_dir: Of the corpus, or where the synthetic world is to be rendered.
        raw_dir: MAVAD's videos before they were anonymised, for Table V.
        profile: Of training; the published one by default, and the default one for the synthetic world.
        seeds: One split each.
        num_videos: A scene of the synthetic world.
        settings: Of training, counting before the profile's.
        on_stage: Told in words what is done next.

    Returns:
        The tables as Markdown, with the time that all stages took.

    Raises:
        ValueError: For an unknown corpus, videos that cannot be read, or a folder that holds other runs.
    """
    if corpus not in ("mavad", "shanghaitech", "synthetic"):
        raise ValueError(f"corpus must be mavad, shanghaitech or synthetic, got {corpus!r}.")
    if raw_dir is not None and corpus != "mavad":
        raise ValueError("raw_dir is for MAVAD, whose Table V compares raw and anonymised videos.")
    if profile is None:
        profile = {"mavad": "paper", "shanghaitech": "shanghaitech", "synthetic": "default"}[corpus]
    settings = dict(settings or {})
    if corpus == "synthetic":
        settings["model_options"] = SYNTHETIC_WIDTHS | settings.get("model_options", {})
    protocol = Protocol(Path(output_dir), profile, settings, seeds, on_stage)
    if corpus == "shanghaitech":
        store = protocol.features(corpus, _load(corpus, data_dir=data_dir), processor)
        tables = [table_iv(protocol, store)]
    elif corpus == "synthetic":
        scenes = {scene: _load(corpus, scene, data_dir=data_dir, num_videos=num_videos) for scene in STREETS}
        for rows in scenes.values():
            store = protocol.features(corpus, rows, processor)
        tables = [table_iii(protocol, store, STREETS, f"synthetic world, {num_videos} drawn videos a scene")]
    else:
        store = protocol.features(corpus, _load(corpus, data_dir=data_dir), processor)
        scenes = [name for name in MAVAD_SCENES.names if name in {row["scene"] for row in FeatureDataset(store).rows}]
        tables = [table_iii(protocol, store, scenes, "MAVAD")]
        if raw_dir is not None:
            raw = protocol.features(f"{corpus}-raw", _load(corpus, data_dir=raw_dir), processor)
            tables.append(table_v(protocol, store, raw, scenes))
    notes = [
        f"Mean ± sample standard deviation over {len(seeds)} splits (seeds {', '.join(map(str, seeds))}), one "
        f"detector each, profile `{profile}`; epoch and threshold chosen on validation videos. All stages took "
        f"{protocol.seconds() / 60:.1f} minutes.",
        *processor.notices,
    ]
    text = "\n\n".join([*tables, *notes]) + "\n"
    if process_state().is_main_process:
        with written_whole(protocol.output_dir / "tables.md") as partial:
            Path(partial).write_text(text, encoding="utf-8")
    return text


__all__ = ["reproduce"]
