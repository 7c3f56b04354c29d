"""The clips of a folder by how unlike the rest they are: no detector, no labels, and a page to look through."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, ProcessorMixin

from avad_hf.convert.getting import encoder_place
from avad_hf.corpora.scan import list_videos
from avad_hf.evaluation.ranked import rank_footage
from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.extraction import extract_features
from avad_hf.files import as_json, write_text
from avad_hf.registration import DESCRIBERS, feature_processor
from avad_hf.report.ranking import write_ranking_csv, write_ranking_page
from avad_hf.runs import only_run

from .settings import keep_settings, refuse_other_settings

# What a ranking leaves in its folder, beside the settings.
FILES = ("features", "ranking.html", "ranking.csv", "ranking.json")
# Rows and columns of maps by which places are told: an eighth of a picture is too much, and finer maps make stores
# larger, of a day 4 GB with these.
PLACES = (4, 7)


@dataclass(frozen=True)
class FolderRanking:
    """What [`rank`] found.

    Args:
        folder: The folder of the videos.
        page: ``ranking.html``; ``ranking.json`` and ``ranking.csv`` lie beside it.
        stretches: The stretches that are most unlike the rest, as of
            [`~avad_hf.evaluation.ranked.RankedFootage`]; ``video`` is the path within the folder.
        num_videos: Videos that were compared.
        num_recordings: Recordings that they are from.
        num_clips: Clips that were compared.
        seconds: Their length.
        encoders: What the encoders computed with, in words.
        notes: What one must know to read the ranking.
        failed: ``id`` and ``error`` of each video that could not be read.
    """

    folder: Path
    page: Path
    stretches: list[dict[str, Any]]
    num_videos: int
    num_recordings: int
    num_clips: int
    seconds: float
    encoders: str
    notes: list[str] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The ranking as a dict that `json.dumps` takes."""
        return {**self.__dict__, "folder": str(self.folder), "page": str(self.page)}


def rank(
    folder: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    top: int = 20,
    model: str | os.PathLike | None = None,
    video_encoder: Any = None,
    audio_encoder: Any = None,
    fps: float | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str = "auto",
    batch_size: int | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_progress: Callable[[int, int], None] | None = None,
) -> FolderRanking:
    """Find what is unlike the rest in a folder of videos. No detector is needed and no labels; nothing is judged.

    Every clip is compared with those of all other recordings (rows of one ``group`` in the folder's ``meta.csv`` are
    one recording; else each video is one): the mean distance to the five nearest, of what is seen and of what is heard
    apart. The same call goes on where it was stopped, and looks at new videos alone.

    Args:
        folder: Folder of the videos, however they lie in it.
        output_dir: Folder of the features, of ``ranking.html``, ``ranking.json`` and ``ranking.csv``.
        top: How many stretches are ranked.
        model: A detector's checkpoint whose processor computes the features, in place of encoders.
        video_encoder: Encoder that reads pictures: the name of a published one, a folder, a Hub id, a model or an
            [`~avad_hf.Encoder`]; ``"i3d"`` by default, which can name what it sees.
        audio_encoder: Encoder that reads sound, likewise; ``"yamnet"`` by default.
        fps: Frames a second of folders of pictures.
        device: Where the encoders compute; the first GPU by default, or the CPU.
        dtype: What they compute in; ``"auto"`` is bfloat16 where the device has hardware for it, else float32.
        batch_size: Clips that go through the encoders together.
        on_stage: Told in words what is done next.
        on_progress: Called after each video with the number that are done and their total.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no video in it that can be read, or too little to compare; if all clips are alike; if
            `output_dir` holds something else, such as the ranking of another folder, or another run writes it.
        OSError: If an encoder cannot be had, or the output cannot be written.
    """
    if top < 1:
        raise ValueError(f"top must be 1 or more, got {top}.")
    if model is not None and (video_encoder is not None or audio_encoder is not None):
        raise ValueError("Give a model, whose encoders are taken, or encoders, not both.")
    folder, output_dir = Path(folder), Path(output_dir)
    with only_run(output_dir):
        settings = ranking_settings(folder, model, video_encoder, audio_encoder)
        refuse_other_settings(output_dir, settings, FILES)
        on_stage(f"looking for videos in {folder}")
        rows = list_videos(folder, fps).rows
        on_stage("loading the encoders")
        processor = features_processor(model, video_encoder, audio_encoder, on_stage)
        keep_settings(output_dir, settings)
        processor.to(device or ("cuda" if torch.cuda.is_available() else "cpu"), dtype)
        on_stage(f"computing the features of {len(rows)} videos")
        store = output_dir / "features"
        done = extract_features(rows, processor, store, clips_per_batch=batch_size, on_progress=on_progress)
        by_id = {row["id"]: row for row in rows}
        failed = [failure for failure in done.failed if failure["id"] in by_id]
        if len(failed) == len(rows):
            raise ValueError(f"None of the {len(rows)} videos in {folder} can be read, first: {failed[0]['error']}")
        # Videos that were in the folder before may be in the store still.
        features = FeatureDataset(store).where(lambda row: row["id"] in by_id)
        footage = rank_footage(processor, by_id, features, top, on_stage)
        ranking = FolderRanking(
            folder=folder,
            page=output_dir / "ranking.html",
            stretches=footage.stretches,
            num_videos=footage.num_videos,
            num_recordings=footage.num_recordings,
            num_clips=footage.num_clips,
            seconds=footage.seconds,
            encoders=processor.computes_in,
            notes=[*dict.fromkeys(processor.notices), *footage.notes],
            failed=failed,
        )
        title = f"What is unlike the rest in {folder.resolve().name}"
        write_ranking_page(ranking.to_dict(), footage.pictures, ranking.page, title)
        write_ranking_csv(ranking.stretches, output_dir / "ranking.csv")
        write_text(output_dir / "ranking.json", as_json(ranking.to_dict(), indent=2) + "\n")
        return ranking


def ranking_settings(
    folder: str | os.PathLike, model: Any = None, video_encoder: Any = None, audio_encoder: Any = None
) -> dict[str, Any]:
    """What a folder of results is bound to, as it is kept there."""
    settings = {"model": model, "video_encoder": video_encoder, "audio_encoder": audio_encoder}
    # Whatever else an encoder is, the feature store tells it by its weights.
    named = {name: os.fspath(one) for name, one in settings.items() if isinstance(one, str | os.PathLike)}
    folders = {name: str(Path(one).resolve()) for name, one in named.items() if os.path.isdir(one)}
    return {"folder": str(Path(folder).resolve())} | named | folders


def features_processor(
    model: str | os.PathLike | None,
    video_encoder: Any = None,
    audio_encoder: Any = None,
    on_stage: Callable[[str], None] | None = None,
    tells_places: bool = False,
) -> ProcessorMixin:
    """The processor of a checkpoint, or one with the encoders that are named, or those that describe.

    Args:
        model: The checkpoint.
        video_encoder: Without it: the encoder that reads pictures.
        audio_encoder: The encoder that reads sound.
        on_stage: Told in words what is downloaded.
        tells_places: Whether maps are as fine as `PLACES`, so that a heat map tells where something is.

    Raises:
        ValueError: For a processor that makes no features, or a checkpoint that cannot be loaded.
        OSError: If an encoder is not there, and cannot be downloaded.
    """
    if model is None:
        encoders = {"video_encoder": video_encoder, "audio_encoder": audio_encoder}
        chosen = {role: DESCRIBERS[role] if one is None else one for role, one in encoders.items()}
        places = {role: encoder_place(role, one, on_stage) for role, one in chosen.items()}
        processor = feature_processor()(**places)
        if tells_places and max(processor.feature_grid) > 1:  # else the encoder gives no map
            processor.feature_grid = PLACES
        return processor
    processor = AutoProcessor.from_pretrained(model, trust_remote_code=False)
    if not getattr(processor, "encoders", None):
        raise ValueError(
            f"{model} has a processor without encoders: its detector reads videos, and no features that could be "
            "compared. Give a checkpoint of a detector that reads features, or name encoders."
        )
    return processor


__all__ = ["FolderRanking", "features_processor", "rank", "ranking_settings"]
