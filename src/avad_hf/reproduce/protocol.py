"""What the tables of both papers share: features, trained detectors and evaluations, each stage done once."""

import functools
import inspect
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForVideoClassification, ProcessorMixin

from avad_hf.corpora.loading import load_dataset
from avad_hf.corpora.splits import SEEDS
from avad_hf.disks import writing
from avad_hf.evaluation.evaluate import evaluate
from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.extraction import extract_features
from avad_hf.files import folder_written_whole, write_text
from avad_hf.processes import process_state
from avad_hf.runs import only_run
from avad_hf.training.config import TrainingConfig
from avad_hf.training.loop import train


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
        output_dir: Folder of all stages.
        profile: Training profile.
        settings: Training settings, which count before the profile's.
        seeds: Seeds of splits and weights.
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

    def run(
        self, store: Path, scene: str | None, seed: int, name: str, options: dict[str, Any], described: str
    ) -> dict[str, Any]:
        """Figures of one detector on its test videos: trained, unless that was done before with the same settings.

        Args:
            store: Features, or videos.
            scene: Only the videos of this scene.
            seed: Seed of the split, of new weights and of the order of the videos.
            name: Name of the detector's folder.
            options: Options of the model's config.
            described: The detector in words.
        """
        place = self.trained(store, scene, seed, name, options, described)
        return self.evaluated(place, FeatureDataset(store, "test", seed, scene), "test")

    def trained(
        self, store: Path, scene: str | None, seed: int, name: str, options: dict[str, Any], described: str
    ) -> Path:
        """Folder of a detector that is trained, with the arguments of `run`."""
        place = self.output_dir / "runs" / store.name / (scene or "all") / f"{name}-seed{seed}"
        config = TrainingConfig.from_profile(
            self.profile,
            **self.settings
            | {"data": str(store), "output_dir": str(place), "scene": scene, "split_seed": seed, "seed": seed}
            | {"model_options": self.settings.get("model_options", {}) | options},
        )
        if (place / "test" / "metrics.json").is_file():
            train(config, resume=True, progress=False)  # which refuses a run with other settings
            return place
        self.on_stage(f"{store.name}, {scene or 'all scenes'}, {described}, split {seed}")
        with _timed(place.with_suffix(".seconds.json")):
            train(config, resume=True, progress=False)
        return place

    def evaluated(self, place: Path, features: FeatureDataset, part: str) -> dict[str, Any]:
        """Figures of a trained detector on some videos, from the folder of this name beside it if that is there."""
        finished = place / part / "metrics.json"
        if finished.is_file():
            return json.loads(finished.read_text(encoding="utf-8"))
        with _timed(place.with_suffix(".seconds.json")):
            model = AutoModelForVideoClassification.from_pretrained(place, trust_remote_code=False).to(
                process_state().device
            )
            found = evaluate(model, features)
        if process_state().is_main_process:
            with writing(place / part, "The evaluation"), folder_written_whole(place / part) as folder:
                found.save(folder)
        process_state().wait_for_everyone()
        return found.figures

    def seconds(self) -> float:
        """How long all stages took, those of earlier runs among them."""
        return sum(json.loads(path.read_text()) for path in self.output_dir.rglob("*.seconds.json"))


def held(reproduction: Callable[..., str]) -> Callable[..., str]:
    """Let a function hold its folder `output_dir` for one run; the processes of the run share the main one's lock."""
    signature = inspect.signature(reproduction)

    @functools.wraps(reproduction)
    def hold(*arguments: Any, **options: Any) -> str:
        output_dir = signature.bind(*arguments, **options).arguments["output_dir"]
        with only_run(output_dir, process_state().is_main_process):
            return reproduction(*arguments, **options)

    return hold


@contextmanager
def _timed(path: Path) -> Iterator[None]:
    """Add the time that something takes to a file, also if it is stopped by an error."""
    begin = time.monotonic()
    try:
        yield
    except Exception:
        with suppress(OSError):  # the disk may be full, which the error that ended the stage says better
            _add_time(path, time.monotonic() - begin)
        raise
    _add_time(path, time.monotonic() - begin)


def _add_time(path: Path, seconds: float) -> None:
    if process_state().is_main_process:
        before = json.loads(path.read_text()) if path.is_file() else 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path, "The time that was taken"):
            write_text(path, json.dumps(before + seconds))


def load(*corpus, **options):
    """A corpus; the main process goes first, and alone renders what is not there yet."""
    with process_state().main_process_first():
        return load_dataset(*corpus, **options)


def write_tables(protocol: Protocol, parts: Sequence[str]) -> str:
    """Write the parts of ``tables.md``; returns the whole."""
    text = "\n\n".join(parts) + "\n"
    if process_state().is_main_process:
        with writing(protocol.output_dir / "tables.md", "The tables"):
            write_text(protocol.output_dir / "tables.md", text)
    return text


def tables_of(text: str) -> list[dict[str, Any]]:
    """The tables of what `write_tables` returns.

    Returns:
        For each table ``title``, the heading above it, ``caption``, the line above it, ``columns``, and ``rows``: a
        dict of texts by column.
    """
    tables: list[dict[str, Any]] = []
    title, caption, columns = "", "", None
    for line in text.splitlines():
        if line.startswith("#"):
            title = line.lstrip("# ")
        if not line.startswith("|"):
            columns, caption = None, line.lstrip("# ") or caption
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if columns is None:
            columns = cells
            tables.append({"title": title, "caption": caption, "columns": columns, "rows": []})
        elif not all(set(cell) <= {"-", ":"} for cell in cells):
            tables[-1]["rows"].append(dict(zip(columns, cells, strict=True)))
    return tables


__all__ = ["Figure", "Protocol", "held", "load", "tables_of", "write_tables"]
