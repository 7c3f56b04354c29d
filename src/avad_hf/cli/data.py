"""`avad-hf scan` and `avad-hf extract`: folders to manifests, videos to features."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from avad_hf.files import shown

from .options import AnonymiseOption, ClipBatchOption, DeviceOption, DType, JsonOption, SceneOption, anonymiser_of
from .results import check_json, write_json
from .terminal import (
    check_checkpoint,
    check_device,
    check_folder,
    counted,
    fail,
    hush_libraries,
    note,
    refuse,
    stop_for,
    stoppable,
)


class StoredDType(StrEnum):
    """Floating point types of stored features."""

    float16 = "float16"
    float32 = "float32"


class Corpus(StrEnum):
    """Corpora whose folders and classes are known."""

    mavad = "mavad"
    shade = "shade"
    shanghaitech = "shanghaitech"


@stoppable("No manifest was written. Run the same command again.")
def scan(
    root: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the corpus.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Manifest to write (csv, jsonl, parquet).", show_default=False)
    ],
    corpus: Annotated[
        Corpus | None, typer.Option(help="Corpus with a known layout.", show_default="the one whose class names fit")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Class names of a corpus of your own, with commas: normal,fire,flood.",
            show_default="names of the folders",
        ),
    ] = None,
    normal: Annotated[
        list[str] | None,
        typer.Option(
            help="Class of your own that is normal; all others are anomalies, and keep their names. Repeat it, or "
            "separate with commas.",
            show_default="none",
        ),
    ] = None,
    scene: Annotated[
        str | None, typer.Option(help="Name of the scene where no folder names it.", show_default="none")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames a second of folders of pictures.", min=0.001, show_default="as meta.csv says"),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Recognise how a folder of videos is laid out, check every video, and write a manifest.

    Example for a folder with class folders ok, leak and fire: avad-hf scan /data/plant -o plant.csv --normal ok

    Videos in no class folder, with no annotations beside them, are listed without labels. Videos that cannot be opened
    are named and left out; the command then ends with status 1.

    Where the corpus fixes no split, the columns split_0, split_1 and split_2 hold three random ones, 60/20/20 within
    each class and scene; where it fixes training and test, they hold a quarter of each training class out for
    validation. A column group in meta.csv (video,group) keeps videos of one recording, camera or day together.
    """
    check_folder(output.parent)
    tell = check_json(json)
    from avad_hf.corpora.manifest import check_new, write_manifest
    from avad_hf.corpora.scan import probe
    from avad_hf.corpora.scan import scan as scan_folder
    from avad_hf.corpora.splits import with_split_columns

    try:
        check_new(output)
        normal = [name for names in normal for name in names.split(",") if name.strip()] if normal else None
        listed = scan_folder(root, corpus and corpus.value, classes and classes.split(","), scene, fps, normal)
    except (OSError, ValueError) as error:
        stop_for(error)
    with counted(root.name, len(listed.rows)) as move:
        videos = probe(listed, move)
    if not videos.rows:
        refuse(f"None of the videos in {root} can be opened, first: {videos.unreadable[0][1]}")
    try:
        # ShanghaiTech's split is published: without its lists there is none.
        at_random = videos.corpus != "shanghaitech" or any(row["split"] for row in videos.rows)
        rows = with_split_columns(videos.rows) if at_random else videos.rows
        write_manifest(rows, output)
    except (OSError, ValueError) as error:
        stop_for(error)
    _print_scan(videos, tell)
    few = _few_for_validation(rows)
    if few:
        note(few)
    tell(f"Wrote {len(videos.rows)} videos to {output}.")
    document = {
        "manifest": str(output),
        "corpus": videos.corpus,
        "layout": videos.layout,
        "num_videos": len(videos.rows),
        "counts": [
            {"scene": scene, "label": label, "num_videos": number}
            for (scene, label), number in Counter((row["scene"], row["label"]) for row in videos.rows).items()
        ],
        "silent": list(videos.silent),
        "orphans": [str(path) for path in videos.orphans],
        "unreadable": [{"video": video, "error": reason} for video, reason in videos.unreadable],
        "notes": [few] if few else [],
    }
    write_json(document, json)
    if videos.unreadable:
        for video, reason in videos.unreadable:
            fail(shown(f"{video}: {reason}"))
        fail(f"{len(videos.unreadable)} videos cannot be opened and are not in the manifest.")
        raise typer.Exit(1)


def _print_scan(videos, tell: Callable[..., None]) -> None:
    tell(f"{videos.corpus}, layout {videos.layout}: {len(videos.rows)} videos")
    counts = Counter((row["scene"] or "(no scene)", row["label"] or "(no label)") for row in videos.rows)
    scenes, labels = ([*dict.fromkeys(names)] for names in zip(*sorted(counts), strict=True))
    width = max(map(len, [*labels, "total"]))
    tell(f"  {'':{width}} " + " ".join(f"{scene:>10}" for scene in scenes))
    for label in [*labels, "total"]:
        cells = [
            counts[scene, label] if label != "total" else sum(n for (s, _), n in counts.items() if s == scene)
            for scene in scenes
        ]
        tell(f"  {label:{width}} " + " ".join(f"{n:>{max(10, len(s))}}" for n, s in zip(cells, scenes, strict=True)))
    for what, items in (("without sound", videos.silent), ("sound files without video", videos.orphans)):
        if items:
            tell(f"{len(items)} {what}: {', '.join(map(str, items[:3]))}{', ...' if len(items) > 3 else ''}")


def _few_for_validation(rows) -> str | None:
    """A warning if the validation set of seed 0 is small."""
    from avad_hf.corpora.splits import small_validation

    splits = [row.get("split_0") or row["split"] for row in rows]
    labels = [row["anomaly"] for row, split in zip(rows, splits, strict=True) if split == "validation"]
    has_all = all(splits) and None not in [row["anomaly"] for row in rows]
    return small_validation(labels) if has_all else None


@stoppable("What is stored stays. Run the same command again, and it goes on.")
def extract(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="Manifest of the videos, as scan writes it.", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="Checkpoint whose processor computes: folder or Hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the feature store.", show_default=False)],
    scene: SceneOption = None,
    batch_size: ClipBatchOption = None,
    decoders: Annotated[
        int | None,
        typer.Option(help="Videos decoded at the same time.", min=1, show_default="1; with a GPU up to 4"),
    ] = None,
    device: DeviceOption = None,
    dtype: Annotated[
        DType,
        typer.Option(
            help="Precision of the encoders; auto: bfloat16 where the device has it. A detector wants the one "
            "that it was trained with."
        ),
    ] = DType.float32,
    visual_dtype: Annotated[
        StoredDType, typer.Option(help="Precision of stored visual features.")
    ] = StoredDType.float16,
    anonymise: AnonymiseOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compute five videos again and compare; write nothing.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Compute the encoders' features of every video once and store them for training.

    Example: avad-hf extract manifest.csv --model checkpoints/new -o features/street

    For detectors whose own networks are trained, the frames that they read and the spectrogram of the sound are
    stored instead.

    A run that was stopped goes on where it was. Videos that cannot be read are listed in failed.jsonl and the command
    ends with status 1. With several processes or machines: accelerate launch -m avad_hf.cli extract ...
    """
    if not verify:
        check_folder(output)
    tell = check_json(json)
    hush_libraries()
    from transformers import AutoProcessor

    from avad_hf import registration  # noqa: F401
    from avad_hf.corpora.loading import load_dataset
    from avad_hf.features.extraction import extract_features, verify_features
    from avad_hf.processes import process_state, share_cores

    try:
        state = process_state()
    except RuntimeError as error:
        refuse(str(error))
    if not state.is_main_process:
        from datasets.utils.logging import disable_progress_bar

        disable_progress_bar()
    check_device(device)
    check_checkpoint(model)
    share_cores()
    try:
        dataset = load_dataset("manifest", scene, data_dir=manifest)
        processor = AutoProcessor.from_pretrained(model, trust_remote_code=False).to(
            device or state.device, dtype.value
        )
        masking = anonymiser_of(anonymise)
    # A broken checkpoint raises whatever its reader does.
    except Exception as error:
        refuse(str(error) or type(error).__name__)
    try:
        if verify:
            _print_differences(verify_features(dataset, processor, output, masking=masking), tell, json)
            return
        with counted(output.name, sum(map(len, dataset.values())), hidden=not state.is_main_process) as move:
            done = extract_features(
                dataset,
                processor,
                output,
                clips_per_batch=batch_size,
                decoders=decoders,
                visual_dtype=visual_dtype.value,
                masking=masking,
                on_progress=move,
            )
    # What is stored stays; out of memory, for example, is nothing that a traceback helps with.
    except Exception as error:
        stop_for(error)
    if state.is_main_process:
        tell(f"{output}: {done.num_stored} videos, {done.num_new} of them new.")
        write_json({"store": str(output)} | asdict(done), json)
        if done.failed:  # each was reported when it failed
            fail(f"{len(done.failed)} videos cannot be read. They are listed in {output / 'failed.jsonl'}.")
    if done.failed:
        raise typer.Exit(1)


def _print_differences(differences: dict[str, float], tell: Callable[..., None], json: Path | None) -> None:
    for video, difference in differences.items():
        tell(f"{video}: largest difference {difference:.2e} of the largest feature")
    write_json({"relative_differences": differences}, json)
    # Processors of another kind round differently, in the last places of float32 and the last one of float16.
    if not max(differences.values()) < 2e-3:
        fail("The store differs from what this processor computes. Extract anew into another folder.")
        raise typer.Exit(1)
