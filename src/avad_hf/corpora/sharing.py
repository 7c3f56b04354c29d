"""Corpora on the Hub: with their videos inside, and a card that counts them."""

import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

from datasets import Audio, ClassLabel, Dataset, DatasetDict, Video
from huggingface_hub import DatasetCard, HfApi

from avad_hf.hub.cards import card, plain, refreshed
from avad_hf.hub.errors import hub_errors
from avad_hf.hub.repository import open_repository

from .manifest import ManifestError

# Which card the corpus of each builder has; any other has the one of own manifests.
CARDS = {"mavad": "mavad", "shade": "shade", "shanghaitech": "shanghaitech", "synthetic": "synthetic"}
# Columns that name files, and how `datasets` takes the files in; without decoding, which needs torchcodec.
FILES = {"video": Video(decode=False), "audio": Audio(decode=False)}


def push_corpus(
    corpus: Dataset | DatasetDict,
    repo_id: str,
    *,
    private: bool,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Upload what `load_dataset` built, with its videos and sound files, as a data set that plain `datasets` reads.

    Args:
        corpus: All splits, or one.
        repo_id: ``user/name``; created if it does not exist.
        private: Create the data set as private. If it exists, it must already be private, or public for ``False``.
            There is no default: the people in the videos did not consent to publication.
        token: Token of the account; the saved one by default.
        revision: Branch to write to; created if it does not exist.

    Returns:
        Address of the data set.

    Raises:
        ManifestError: If a video is missing, a folder of pictures or a URL, which a data set cannot take in; if rows
            are stretches of one video, each of which would carry the whole. A single stretch does.
        HubError: If the Hub refuses or cannot be reached.
    """
    splits = corpus if isinstance(corpus, DatasetDict) else DatasetDict({str(corpus.split or "train"): corpus})
    for rows in splits.values():
        _check_files(rows)
    videos = Counter(path for rows in splits.values() for path in rows["video"])
    if shared := [path for path, count in videos.items() if count > 1]:
        raise ManifestError(
            f"{len(shared)} videos stand in several rows, as stretches, first {shared[0]}: each row would carry the "
            "whole file. Cut them into files of their own first, with ffmpeg for example."
        )
    builder = next(iter(splits.values())).info.builder_name
    counted = contents(row for part, rows in splits.items() for row in _described(rows, part))
    for name, feature in FILES.items():
        splits = splits.cast_column(name, feature)
    api = HfApi(token=token)
    with hub_errors(repo_id, "dataset", "uploaded"):
        repo = open_repository(api, repo_id, "dataset", private, revision)
        # Before the rows: `datasets` adds what it knows of their columns to the metadata of a card that is there.
        values = {"title": repo.split("/")[-1], "location": repo, "content": counted}
        upload_card(api, repo, CARDS.get(builder or "", "manifest"), revision, **values)
        splits.push_to_hub(repo, token=token, revision=revision, private=private)
    return f"{api.endpoint}/datasets/{repo}"


def _check_files(rows: Dataset) -> None:
    for name in FILES:
        for path in rows[name]:
            if path is not None and not (isinstance(path, str) and os.path.isfile(path)):
                what_it_is = (
                    "a folder of pictures" if isinstance(path, str) and os.path.isdir(path) else "no file here"
                )
                raise ManifestError(
                    f"{path}: {what_it_is}, which cannot be put into a data set. Only video and sound files can; "
                    "Dataset.push_to_hub uploads the table without them."
                )


def _described(rows: Dataset, part: str) -> Iterable[dict[str, Any]]:
    """What `contents` counts, with the names of classes."""
    label = rows.features["label"]
    for row in rows.select_columns(["label", "anomaly", "scene"]):
        named = label.int2str(row["label"]) if isinstance(label, ClassLabel) and row["label"] is not None else None
        yield row | {"label": named or row["label"], "split": part}


def contents(rows: Iterable[dict[str, Any]]) -> str:
    """How many videos of each class, scene and split there are, as a table of Markdown.

    Args:
        rows: With ``label``, ``anomaly``, ``scene`` and ``split``, each of which may be ``None``.
    """
    rows = list(rows)
    splits = [name for name in ("train", "validation", "test") if any(row["split"] == name for row in rows)]
    counts = Counter((row["scene"], row["anomaly"], row["label"], row["split"]) for row in rows)
    groups = sorted(
        {group[:3] for group in counts}, key=lambda group: tuple((item is not None, item) for item in group)
    )
    lines = [
        f"{len(rows)} videos, {sum(row['anomaly'] == 1 for row in rows)} of them anomalous.",
        "",
        "| scene | class | anomaly | " + " | ".join([*splits, "all"]) + " |",
        "|---" * (4 + len(splits)) + "|",
    ]
    for group in groups:
        total = sum(count for key, count in counts.items() if key[:3] == group)
        scene, anomaly, label = ("" if item is None else plain(item) for item in group)
        called = {"1": "yes", "0": "no"}.get(anomaly, "unknown")
        cells = [str(counts[*group, split]) for split in splits]
        lines.append(f"| {scene} | {label} | {called} | {' | '.join([*cells, str(total)])} |")
    return "\n".join(lines)


def upload_card(api: HfApi, repo_id: str, template: str, revision: str | None, **values: Any) -> None:
    """Give a data set its card; of one that is there, only the parts that the template marks are written anew."""
    text = card(template, **values)
    if api.file_exists(repo_id, "README.md", repo_type="dataset", revision=revision):
        path = api.hf_hub_download(repo_id, "README.md", repo_type="dataset", revision=revision)
        present = DatasetCard.load(path)
        text = refreshed(str(present), template, **values)
        if text == str(present):
            return
    api.upload_file(
        path_or_fileobj=text.encode(),
        path_in_repo="README.md",
        repo_id=repo_id,
        repo_type="dataset",
        revision=revision,
        commit_message="Card",
    )


__all__ = ["contents", "push_corpus", "upload_card"]
