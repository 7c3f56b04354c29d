"""`avad_hf.load_dataset`: this library's corpora in the manner of `datasets.load_dataset`."""

import os
from importlib import import_module
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

# Corpora, one a line: the file of each in this folder, and its builder.
BUILDERS = {
    "mavad": "mavad.Mavad",
    "shade": "shade.Shade",
    "shanghaitech": "shanghaitech.ShanghaiTech",
    "synthetic": "synthetic.Synthetic",
    "cctv-fights": "cctv_fights.CctvFights",
    "manifest": "corpus.OwnCorpus",
}


def load_dataset(
    path: str,
    name: str | None = None,
    *,
    data_dir: str | os.PathLike | None = None,
    split: str | None = None,
    seed: int | None = None,
    streaming: bool = False,
    cache_dir: str | os.PathLike | None = None,
    **options: Any,
) -> Dataset | DatasetDict | IterableDataset | IterableDatasetDict:
    """Load a corpus as a data set whose rows say where each video is and what is known of it.

    Args:
        path: Name of a corpus: ``"mavad"``, ``"shade"``, ``"shanghaitech"``, ``"synthetic"``, ``"cctv-fights"``; or
            ``"manifest"`` for one's own.
        name: Part of it: a scene of MAVAD, the synthetic world or one's own (``"all"`` by default, where there is
            one); ``"dark"`` of SHADE; ``"weakly_supervised"`` or ``"original"`` split of ShanghaiTech.
        data_dir: Folder of the corpus, or its manifest (csv, jsonl or parquet). A ``manifest.*`` in the folder counts
            before the folder's layout.
        split: ``"train"``, ``"validation"``, ``"test"``, or an expression such as ``"train[:10%]"``; a dict of all by
            default.
        seed: Seed of the random split (`avad_hf.corpora.splits.stratified`). Where a corpus fixes training and test,
            it holds a quarter of the training set out for validation.
        streaming: Whether rows are made when they are read, without a cache.
        cache_dir: Cache of `datasets`; its own by default.
        options: ``fps`` of folders of pictures; ``num_videos`` and ``world_seed`` of the synthetic world.

    Returns:
        Rows with ``id``, ``video`` and ``audio`` (paths), ``label``, ``anomaly`` (1 or 0), ``scene``, ``group``,
        ``split``, ``start`` and ``end`` in seconds, ``fps``, ``hour``, ``weather``, ``dark``, ``frame_mask``, and the
        manifest's other columns.

    Raises:
        ManifestError: If the folder or manifest cannot be used.
        ValueError: For an unknown corpus, name or split.
    """
    if path not in BUILDERS:
        raise ValueError(
            f"{path!r} is none of {', '.join(BUILDERS)}. Data sets on the Hub are loaded by datasets.load_dataset; a "
            'folder of your own by load_dataset("manifest", data_dir=...).'
        )
    module, _, builder_class = BUILDERS[path].partition(".")
    builder = getattr(import_module(f".{module}", __package__), builder_class)(
        config_name=name,
        data_dir=None if data_dir is None else os.path.abspath(data_dir),
        seed=seed,
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        **options,
    )
    if streaming:
        return builder.as_streaming_dataset(split)
    builder.download_and_prepare()
    return builder.as_dataset(split)
