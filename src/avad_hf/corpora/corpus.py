"""Corpora as `datasets` builders: what they have in common, and the one for people's own manifests."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets

from .classes import NameTable, normalised
from .manifest import COLUMNS, FORMATS, ManifestError, read_manifest, refuse_outside
from .masks import read_frame_mask
from .splits import SEEDS, SPLITS, assign_splits, with_split_columns

ALL = "all"
VALUE_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}


@dataclass
class CorpusConfig(datasets.BuilderConfig):
    """Which part of a corpus, and how it is split.

    Args:
        name: Scene or subset.
        data_dir: Folder of the corpus, or a manifest.
        seed: Seed of the random split, as in [`~avad_hf.corpora.splits.assign_splits`].
        fps: Frames a second of folders of pictures.
    """

    seed: int | None = None
    fps: float | None = None

    # Classes and scenes of a corpus whose names are known, in any of their spellings.
    classes: ClassVar[NameTable | None] = None
    scenes: ClassVar[NameTable | None] = None
    splits_at_random: ClassVar[bool] = True

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name the cache by what the rows hold, so that a changed folder is read anew."""
        rows = self.read()
        # So that every part of the rows knows the split of the whole.
        if any(row["split"] for row in rows) or self.splits_at_random:
            rows = with_split_columns(rows, {*SEEDS, *([] if self.seed is None else [self.seed])})
        self.rows = rows
        masks = [os.stat(row["frame_mask"]) for row in rows if row["frame_mask"] is not None]
        content = json.dumps([self.seed, rows, [(mask.st_size, mask.st_mtime_ns) for mask in masks]], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def read(self) -> list[dict[str, Any]]:
        """Rows of the whole corpus, from its manifest or, without one, from its folders."""
        if self.data_dir is None:
            raise ManifestError(f"data_dir is needed: the folder of the corpus, or a manifest ({', '.join(FORMATS)}).")
        source = Path(self.data_dir)
        if not source.exists():
            raise ManifestError(
                f"{source}: no such folder or manifest. `avad-hf scan FOLDER -o manifest.csv` writes a manifest."
            )
        if source.is_dir():
            manifests = [
                source / f"manifest{ending}" for ending in FORMATS if (source / f"manifest{ending}").is_file()
            ]
            if len(manifests) > 1:
                raise ManifestError(f"{source} has {' and '.join(path.name for path in manifests)}. Keep one.")
            if not manifests:
                return self.read_folder(source)
            source = manifests[0]
        rows = read_manifest(source)
        if Path(self.data_dir) != source:
            refuse_outside(rows, source.parent, os.fspath(source))
        if self.fps is not None:
            for row in rows:
                if row["fps"] is None and os.path.isdir(row["video"]):
                    row["fps"] = self.fps
        for row in rows:
            for column, table in (("label", self.classes), ("scene", self.scenes)):
                if table is not None and row[column] is not None:
                    row[column] = table.find(row[column]) or row[column]
        return rows

    def read_folder(self, folder: Path) -> list[dict[str, Any]]:
        """Rows of a folder without a manifest."""
        raise ManifestError(
            f"{folder} has no manifest.csv, manifest.jsonl or manifest.parquet. `avad-hf scan {folder} -o "
            f"{folder / 'manifest.csv'}` writes one."
        )


class CorpusBuilder(datasets.GeneratorBasedBuilder):
    """Rows of a manifest as a data set, one split each for training, validation and test."""

    BUILDER_CONFIG_CLASS = CorpusConfig
    VERSION = datasets.Version("1.0.0")
    description: ClassVar[str] = "Videos that a manifest lists."
    homepage: ClassVar[str] = ""
    citation: ClassVar[str] = ""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the whole corpus."""
        return self.config.rows

    def _info(self) -> datasets.DatasetInfo:
        names = self._class_names()
        text, number = datasets.Value("string"), datasets.Value("float64")
        features = {
            "id": text,
            "video": text,
            "audio": text,
            "label": datasets.ClassLabel(names=names) if names else text,
            "anomaly": datasets.ClassLabel(names=["normal", "anomaly"]),
            "scene": text,
            "group": text,
            "split": text,
            "start": number,
            "end": number,
            "fps": number,
            "hour": datasets.Value("int64"),
            "weather": text,
            "dark": datasets.Value("bool"),
            "frame_mask": datasets.List(datasets.Value("uint8")),
        }
        extra = dict.fromkeys(name for row in self.rows for name in row if name not in COLUMNS)
        features |= {name: self._feature_of(name) for name in extra}
        return datasets.DatasetInfo(
            description=self.description,
            homepage=self.homepage,
            citation=self.citation,
            features=datasets.Features(features),
        )

    def _class_names(self) -> list[str]:
        if (table := self.config.classes) is not None:
            if unknown := sorted({str(row["label"]) for row in self.rows} - set(table.names)):
                raise ManifestError(
                    f"{self.config.data_dir}: {', '.join(map(repr, unknown))} is no class of {type(self).__name__}. "
                    f"Classes known: {', '.join(table.names)}. Correct the label column, or load the manifest "
                    'with load_dataset("manifest").'
                )
            return table.names
        labels = {row["label"]: row["anomaly"] for row in self.rows if row["label"] is not None}
        spellings: dict[str, str] = {}
        for label in sorted(labels):
            if (other := spellings.setdefault(normalised(label), label)) != label:
                raise ManifestError(
                    f"{self.config.data_dir}: {other!r} and {label!r} differ only in spelling. Write them alike."
                )
        # Normal classes first, so that 0 is normal where there is one of them.
        return sorted(labels, key=lambda label: (labels[label], label))

    def _feature_of(self, name: str) -> datasets.Value:
        types = {type(row[name]) for row in self.rows if row.get(name) is not None}
        if types == {int, float}:
            types = {float}
        if len(types) > 1 or not types <= VALUE_TYPES.keys():
            mixed = ", ".join(sorted(value_type.__name__ for value_type in types))
            raise ManifestError(
                f"{self.config.data_dir}: the column {name!r} mixes {mixed}. Give it one kind of value: text, "
                "numbers, or true and false."
            )
        return datasets.Value(VALUE_TYPES[types.pop()] if types else "string")

    def select(self) -> list[dict[str, Any]]:
        """Rows of this configuration."""
        if self.config.name in (ALL, "default"):
            return self.rows
        scenes = sorted({row["scene"] for row in self.rows if row["scene"] is not None})
        if self.config.name not in scenes:
            raise ManifestError(
                f"{self.config.data_dir} has no videos of scene {self.config.name!r}. Scenes: "
                f"{', '.join(scenes) or 'none is named'}. The name 'all' takes everything."
            )
        return [row for row in self.rows if row["scene"] == self.config.name]

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        rows = self.select()
        if not rows:
            raise ManifestError(f"{self.config.data_dir} has no videos of the configuration {self.config.name!r}.")
        parts = assign_splits(rows, self.config.seed)
        rows = [self._example(row) for row in rows]
        return [
            datasets.SplitGenerator(
                name=split, gen_kwargs={"rows": [row for row, part in zip(rows, parts, strict=True) if part == split]}
            )
            for split in SPLITS
            if split in parts
        ]

    def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(rows)

    def _example(self, row: dict[str, Any]) -> dict[str, Any]:
        # Here, since `datasets` hides what is raised while examples are generated.
        mask = None if row["frame_mask"] is None else read_frame_mask(row["frame_mask"])
        return {name: row.get(name) for name in self.info.features} | {"frame_mask": mask}


class OwnCorpus(CorpusBuilder):
    """The videos of one's own manifest; configurations are its scenes, and ``all``."""
