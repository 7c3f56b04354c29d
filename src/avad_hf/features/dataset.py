"""The feature store: what frozen encoders gave, one file a video, read lazily for training."""

import os
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi, snapshot_download
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from avad_hf.corpora.sharing import contents, upload_card
from avad_hf.corpora.splits import SPLITS, assign_splits
from avad_hf.hub.cards import code, plain
from avad_hf.hub.contents import inside
from avad_hf.hub.errors import hub_errors
from avad_hf.hub.repository import open_repository
from avad_hf.media.windows import normalised

from .changes import Item
from .store import FEATURES, INDEX, RECIPE, finished_store, read_features, read_index, read_recipe

# Features that have one row a clip.
FEATURE_NAMES = ("visual_features", "audio_features", "patch_features")


class FeatureDataset(Dataset):
    """Features of many videos, one video an item, read from disk when it is asked for.

    Args:
        source: Folder that [`extract_features`] wrote, or the Hub id of a data set that `push_to_hub` wrote.
        split: ``"train"``, ``"validation"`` or ``"test"``; all videos by default.
        seed: Seed of the split, as in [`load_dataset`].
        scene: Only the videos of this scene.
        revision: Branch, tag or commit on the Hub.

    The store of a processor without encoders holds frames and log-mel spectrograms, for networks that are trained as a
    whole.

    Attributes:
        rows: What is known of each video: ``id``, ``label``, ``anomaly`` (1, 0, or ``None`` without label),
            ``scene``, ``split``, ``num_clips``, ``has_audio``, ``duration`` in seconds, ``fps``, and the manifest's
            other columns.
        recipe: What made the features: encoders and their weights' hashes, sizes, versions.
        class_numbers: Labels after `with_classes`.
        selection: Which videos these are: ``name``, ``hub_id`` and ``revision`` of a data set on the Hub, ``split``,
            ``split_seed`` and ``scene``.

    Raises:
        FileNotFoundError: If there is no finished store.
        ValueError: For an unknown split or scene, or none of its videos.
        HubError: If the Hub has no such data set, or cannot be reached.
    """

    rows: list[dict[str, Any]]
    selection: dict[str, Any]
    recipe: dict[str, Any] | None = None
    class_numbers: list[int] | None = None
    _classes_beside: bool = False
    _change: Callable[[int, Tensor], Tensor] | None = None
    _maps: tuple[Callable[[Item], Item], ...] = ()
    _held: dict[str, Item] | None = None

    def __init__(
        self,
        source: str | os.PathLike,
        split: str | None = None,
        seed: int | None = None,
        scene: str | None = None,
        revision: str | None = None,
    ):
        self.directory = finished_store(_local(source, revision))
        self.recipe = read_recipe(self.directory)
        self.rows = select(read_index(self.directory), split, seed, scene, f"The feature store {source}")
        self.selection = described(source, split, seed, scene)
        if not os.path.isdir(source):
            # The cache names a snapshot by its commit.
            self.selection |= {"name": source, "hub_id": source, "revision": self.directory.name}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def holds_videos(self) -> bool:
        """Whether items are frames and spectrograms of whole videos, and not features of frozen encoders."""
        return bool(self.recipe) and self.recipe.get("visual_dtype") == "uint8"

    @property
    def reads(self) -> str:
        """What a detector must read to learn from it: ``"features"`` or ``"videos"``."""
        return "videos" if self.holds_videos else "features"

    def with_classes(self, names: Sequence[str], beside: bool = False) -> "FeatureDataset":
        """The same videos, with class numbers as labels.

        Args:
            names: Names of the classes, in the order of their numbers.
            beside: Whether labels stay, and class numbers stand beside them as ``class_labels``: for detectors of
                clips that name classes too.

        Raises:
            ValueError: If videos have no label, or another one.
        """
        numbers = {name: number for number, name in enumerate(names)}
        if unlabelled := [row["id"] for row in self.rows if row["label"] is None]:
            raise ValueError(
                f"{len(unlabelled)} of {len(self.rows)} videos have no class, first {unlabelled[0]!r}. Fill in the "
                "manifest's column label and extract again (what is stored stays), or leave these videos out."
            )
        if unknown := sorted({row["label"] for row in self.rows} - numbers.keys()):
            raise ValueError(
                f"Videos are labelled {', '.join(unknown)}, which is no class of the model ({', '.join(names)}). Give "
                "a model with the classes of these videos, or correct the labels."
            )
        other = copy(self)
        other.class_numbers = [numbers[row["label"]] for row in self.rows]
        other._classes_beside = beside
        return other

    def where(self, keep: Callable[[dict[str, Any]], bool]) -> "FeatureDataset":
        """Those of the videos whose row is to be kept; without labels of `with_classes`."""
        other = copy(self)
        other.rows, other.class_numbers = [row for row in self.rows if keep(row)], None
        other.selection = self.selection | {"name": f"{self.selection['name']}, some videos", "hub_id": None}
        return other

    def held(self) -> "FeatureDataset":
        """The same videos, whose features stay in memory once they are read: for several trainings in one process."""
        other = copy(self)
        other._held = {}
        return other

    def with_frames(self, change: Callable[[int, Tensor], Tensor]) -> "FeatureDataset":
        """The same videos, with other frames: mirrored, or with parts of them hidden.

        Args:
            change: Given the number of an item and its frames, of shape `(F, 3, H, W)`, RGB, uint8, returns new ones.
        """
        other = copy(self)
        other._change = change
        other.selection = self.selection | {"name": f"{self.selection['name']}, frames changed", "hub_id": None}
        return other

    def map(self, change: Callable[[Item], Item], name: str | None = None) -> "FeatureDataset":
        """The same videos, with features that are changed when they are read; the recipe says so.

        A detector that is trained on them reads features of this recipe alone.

        Args:
            change: Given an item, as `__getitem__` gives it, returns one with the same names: `Pooled`, `Scaled`, or a
                function of your own. It is called every time that an item is read.
            name: What the recipe says of it; needed for functions, of which a recipe cannot hold the code.

        Raises:
            ValueError: For a function without a name, or a store of whole videos, whose frames `with_frames` changes.
        """
        if self.holds_videos:
            raise ValueError("map changes stored features, and this store holds frames. Use with_frames.")
        if name is None and not is_dataclass(change):
            raise ValueError(
                f"map needs a name for {getattr(change, '__name__', change)}: the recipe says by it what was done. "
                "Give one that tells this change from others."
            )
        other = copy(self)
        other._maps = (*self._maps, change)
        recipe = self.recipe or {}
        other.recipe = recipe | {"changes": [*recipe.get("changes", ()), name or repr(change)]}
        other.selection = self.selection | {"name": f"{self.selection['name']}, changed", "hub_id": None}
        return other

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a clip's features by their names, without labels: ``(C, h, w)``, ``(S, A)`` and ``(P, C)``."""
        item = self[0]
        return {name: tuple(item[name].shape[1:]) for name in FEATURE_NAMES if name in item}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Features of one video, as `collate` joins them to a batch.

        Returns:
            ``visual_features`` of shape `(T, C, h, w)` and ``audio_features`` of shape `(T, S, A)`, float32;
            ``clip_mask`` of shape `(T,)`, true; ``clip_times`` of shape `(T, 2)`, start and end in seconds, float64;
            ``has_audio`` of shape `(1,)`; ``labels``, 1.0 for an anomalous video and 0.0 for a normal one, if it has
            a label; ``patch_features`` of shape `(T, P, C)`, float32, if the store has some: of P places in a frame.

            Of a store of whole videos: ``pixel_values_videos`` of shape `(F, 3, H, W)`, normalised;
            ``input_features`` of shape `(frames, 64)`, no frames without sound; ``audio_frame_mask`` of shape
            `(frames,)`, true; ``clip_times`` of shape `(1, 2)`; ``has_audio``; ``labels``, a class number, after
            `with_classes`.
        """
        row = self.rows[index]
        item = self._load_video(index) if self.holds_videos else self._load(row)
        for change in self._maps:
            item = change(item)
        for name in (*FEATURE_NAMES, "input_features"):
            if name in item and not item[name].isfinite().all():
                raise ValueError(f"{row['id']}: its {name} hold NaN or infinite values. Extract this video again.")
        if "visual_features" in item:
            item["clip_mask"] = torch.ones(len(item["visual_features"]), dtype=torch.bool)
        if self.class_numbers is not None:
            item["class_labels" if self._classes_beside else "labels"] = torch.tensor(self.class_numbers[index])
        if "labels" not in item and row["anomaly"] is not None and not self.holds_videos:
            item["labels"] = torch.tensor(float(row["anomaly"]))
        return item

    def _read(self, row: dict[str, Any], *names: str) -> dict[str, Tensor]:
        """What a store holds of a video; raises ``ValueError`` for a file that is not in the store, or lacks some."""
        path = inside(self.directory, row["file"], f"file of {row['id']!r}")
        _, tensors = read_features(path)
        if missing := [name for name in names if name not in tensors]:
            raise ValueError(
                f"{path} is damaged: it has no {', '.join(missing)}. Delete it, and run the extraction again."
            )
        return tensors

    def _load(self, row: dict[str, Any]) -> dict[str, Tensor]:
        if self._held is None:
            return self._loaded(row)
        if row["file"] not in self._held:
            self._held[row["file"]] = {name: tensor.clone() for name, tensor in self._loaded(row).items()}
        return dict(self._held[row["file"]])

    def _loaded(self, row: dict[str, Any]) -> dict[str, Tensor]:
        needed = FEATURE_NAMES if (self.recipe or {}).get("processor", {}).get("patches") else FEATURE_NAMES[:2]
        tensors = self._read(row, *needed, "clip_times")
        features = {name: tensors[name].float() for name in needed}
        return features | {"clip_times": tensors["clip_times"], "has_audio": torch.tensor([row["has_audio"]])}

    def _load_video(self, index: int) -> dict[str, Tensor]:
        tensors = self._read(self.rows[index], "frames", "log_mel", "clip_times")
        return self._video_item(index, tensors["frames"], tensors["log_mel"], tensors["clip_times"])

    def _video_item(self, index: int, frames: Tensor, log_mel: Tensor, times: Tensor) -> dict[str, Tensor]:
        """What a detector reads of some frames and their sound."""
        settings = self.recipe["processor"]
        frames = frames if self._change is None else self._change(index, frames)
        return {
            "pixel_values_videos": normalised(
                frames, settings["rescale_factor"], settings["image_mean"], settings["image_std"]
            ),
            "input_features": log_mel,
            "audio_frame_mask": torch.ones(len(log_mel), dtype=torch.bool),
            "clip_times": times,
            "has_audio": torch.tensor([self.rows[index]["has_audio"]]),
        }

    def num_parts(self, index: int) -> int:
        """In how many parts a video is scored: 1, or the windows of a long one in a store of whole videos."""
        return self.rows[index].get("num_windows") or 1

    def parts(self, index: int) -> Iterator[dict[str, Tensor]]:
        """What is scored of a video, as the pipeline scores it: all of it, or the windows of a long one in turn."""
        if self.num_parts(index) == 1:
            yield self[index]
            return
        tensors = self._read(
            self.rows[index], "window_frames", "window_log_mel", "window_log_mel_lengths", "window_times"
        )
        ends = tensors["window_log_mel_lengths"].cumsum(0).tolist()
        for number, frames in enumerate(tensors["window_frames"]):
            begin = 0 if number == 0 else ends[number - 1]
            log_mel, times = tensors["window_log_mel"][begin : ends[number]], tensors["window_times"][number, None]
            yield self._video_item(index, frames, log_mel, times)

    def frame_labels(self, row: dict[str, Any]) -> np.ndarray | None:
        """Which frames of a video are anomalous: 0 and 1 of shape `(frames,)`, or ``None`` where nobody knows.

        All frames of a normal video are normal.
        """
        if row.get("frame_mask") is not None:
            return np.array(row["frame_mask"], dtype=np.uint8)
        return np.zeros(max(1, round(row["duration"] * row["fps"])), np.uint8) if row["anomaly"] == 0 else None

    def clip_frames(self, row: dict[str, Any]) -> tuple[int, int]:
        """Frames of a clip, and from one clip's start to the next one's."""
        settings = self.recipe["processor"]
        length = self.recipe["video_encoder"]["config"]["num_frames"] * settings.get("frame_step", 1)
        return length, settings["clip_stride"]

    @staticmethod
    def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Join items to a batch, as a `torch.utils.data.DataLoader` wants it.

        Returns:
            What `__getitem__` gives, of shape `(B, T, ...)`: videos of fewer clips, and shorter sound, are padded
            with zeros, which ``clip_mask`` and ``audio_frame_mask`` tell from what is real. ``labels`` of shape
            `(B,)`, if all items have one.
        """
        names = [name for name in items[0] if all(name in item for item in items)]
        batch = {}
        for name in names:
            parts = [item[name] for item in items]
            if name in ("labels", "class_labels", "has_audio"):
                batch[name] = torch.stack([part.squeeze() for part in parts])
            else:
                batch[name] = pad_sequence(parts, batch_first=True)
        return batch

    def push_to_hub(
        self, repo_id: str, private: bool = True, token: str | None = None, revision: str | None = None
    ) -> str:
        """Upload the whole store, whatever part of it this object shows, as a data set.

        Args:
            repo_id: ``user/name``; created if it does not exist.
            private: Create the data set as private. If it exists, it must already be private, or public for
                ``False``. Features can tell who is in a video, and a store of whole videos holds frames of it.
            token: Token of the account; the saved one by default.
            revision: Branch to write to; created if it does not exist.

        Returns:
            Address of the data set.

        Raises:
            HubError: If the Hub refuses or cannot be reached.
        """
        rows = read_index(self.directory)
        for row in rows:  # what a link leads to would be published
            inside(self.directory, row["file"], f"file of {row['id']!r}")
        described = {"content": contents(rows), "recipe": _recipe_facts(self.recipe)}
        api = HfApi(token=token)
        with hub_errors(repo_id, "dataset", "uploaded"):
            repo = open_repository(api, repo_id, "dataset", private, revision)
            upload_card(api, repo, "feature_store", revision, title=repo.split("/")[-1], location=repo, **described)
            api.upload_folder(
                repo_id=repo,
                repo_type="dataset",
                folder_path=self.directory,
                revision=revision,
                allow_patterns=[RECIPE, INDEX, f"{FEATURES}/*/*.safetensors"],
                # A store that has lost videos since.
                delete_patterns=f"{FEATURES}/*",
                commit_message=f"Features of {len(rows)} videos",
            )
        return f"{api.endpoint}/datasets/{repo}"


def _recipe_facts(recipe: dict[str, Any]) -> list[str]:
    """What a card says of how features were made."""
    settings = {name: value for name, value in recipe["processor"].items() if name != "feature_extractor"}
    facts = [plain(", ".join(f"{name}: {value}" for name, value in settings.items()))]
    for role in ("video_encoder", "audio_encoder"):
        if "weights_sha256" in recipe.get(role, {}):
            facts.append(f"{role}: SHA-256 of its weights {code(recipe[role]['weights_sha256'])}")
    if recipe.get("versions"):
        versions = ", ".join(f"{name} {value}" for name, value in recipe["versions"].items())
        facts.append(f"computed with {plain(versions)}")
    return [*facts, *map(plain, recipe.get("notices", ()))]


def _local(source: str | os.PathLike, revision: str | None) -> Path:
    """The folder itself, or a snapshot of the data set on the Hub."""
    name = os.fspath(source)
    if not os.path.isdir(name):
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise FileNotFoundError(
                f"{name}: no such folder. Give the folder that `avad-hf extract` wrote, or a Hub id."
            )
        with hub_errors(name, "dataset", "downloaded"):
            folder = Path(snapshot_download(name, repo_type="dataset", revision=revision))
        # Where the Hub cannot be asked, its client gives what the cache has of a data set, whole or not.
        needed = [RECIPE, INDEX]
        if (folder / INDEX).is_file():
            needed += [row["file"] for row in read_index(folder)]
        if missing := [file for file in needed if not (folder / file).is_file()]:
            raise FileNotFoundError(
                f"{name}: {len(missing)} files of a feature store are missing, first {missing[0]}. If the download "
                "broke off, connect and do the same again; if the upload did, push the store again."
            )
        return folder
    return Path(name)


def described(
    source: str | os.PathLike, split: str | None, seed: int | None, scene: str | None
) -> dict[str, str | int | None]:
    """Which videos of a folder are meant, for those who read figures of them later."""
    settings = {"split": split, "split_seed": seed, "scene": scene}
    return {"name": Path(source).resolve().name, "hub_id": None, "revision": None, **settings}


def select(
    rows: Sequence[dict[str, Any]], split: str | None, seed: int | None, scene: str | None, name: str
) -> list[dict[str, Any]]:
    """Rows of a split and scene, with the split of each filled in; `name` says in errors where they are from."""
    if split is not None and split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
    scenes = sorted({row["scene"] for row in rows if row["scene"]})
    if scene is not None and scene not in scenes:
        raise ValueError(f"{name} has no scene {scene!r}. Scenes: {', '.join(scenes) or 'none is named'}.")
    # Before a part is taken, since the rule orders all videos of a class.
    rows = [row | {"split": part} for row, part in zip(rows, assign_splits(rows, seed), strict=True)]
    chosen = [row for row in rows if scene in (None, row["scene"]) and split in (None, row["split"])]
    if not chosen:
        raise ValueError(f"{name} has no video in split {split or 'any'}, scene {scene or 'any'}.")
    return chosen


__all__ = ["FeatureDataset"]
