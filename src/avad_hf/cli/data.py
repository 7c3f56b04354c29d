"""`avad-hf scan` and `avad-hf extract`: folders to manifests, videos to features."""

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from avad_hf.files import shown

from .terminal import (
    DType,
    check_checkpoint,
    check_device,
    check_folder,
    counted,
    fail,
    note,
    quiet,
    refuse,
    say,
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
    root: Annotated[Path, typer.Argument(help="Folder of the corpus.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Manifest to write (csv, jsonl, parquet).", show_default=False)
    ],
    corpus: Annotated[Corpus | None, typer.Option(help="Default: the one whose class names fit.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names of a corpus of your own, with commas: normal,fire,flood.")
    ] = None,
    normal: Annotated[
        list[str] | None,
        typer.Option(
            help="Class of your own that is normal; all others are anomalies, and keep their names. Repeat it, or "
            "separate with commas.",
            show_default=False,
        ),
    ] = None,
    scene: Annotated[str | None, typer.Option(help="Name of the scene where no folder names it.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second of folders of pictures.", min=0.001)] = None,
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
    from avad_hf.corpora.manifest import check_new, write_manifest
    from avad_hf.corpora.scan import probe
    from avad_hf.corpora.scan import scan as scan_folder
    from avad_hf.corpora.splits import with_split_columns

    try:
        check_new(output)
        normal = [name for names in normal for name in names.split(",") if name.strip()] if normal else None
        found = scan_folder(root, corpus and corpus.value, classes and classes.split(","), scene, fps, normal)
    except (OSError, ValueError) as error:
        refuse(str(error))
    with counted(root.name, len(found.rows)) as move:
        found = probe(found, move)
    if not found.rows:
        refuse(f"None of the videos in {root} can be opened, first: {found.unreadable[0][1]}")
    try:
        # ShanghaiTech's split is published: without its lists there is none.
        at_random = found.corpus != "shanghaitech" or any(row["split"] for row in found.rows)
        rows = with_split_columns(found.rows) if at_random else found.rows
        write_manifest(rows, output)
    except (OSError, ValueError) as error:
        refuse(str(error))
    _print_scan(found)
    _warn_of_few(rows)
    say(f"Wrote {len(found.rows)} videos to {output}.")
    if found.unreadable:
        for video, reason in found.unreadable:
            fail(shown(f"{video}: {reason}"))
        fail(f"{len(found.unreadable)} videos cannot be opened and are not in the manifest.")
        raise typer.Exit(1)


def _print_scan(found) -> None:
    say(f"{found.corpus}, layout {found.layout}: {len(found.rows)} videos")
    counts = Counter((row["scene"] or "(no scene)", row["label"] or "(no label)") for row in found.rows)
    scenes, labels = ([*dict.fromkeys(names)] for names in zip(*sorted(counts), strict=True))
    width = max(map(len, [*labels, "total"]))
    say(f"  {'':{width}} " + " ".join(f"{scene:>10}" for scene in scenes))
    for label in [*labels, "total"]:
        cells = [
            counts[scene, label] if label != "total" else sum(n for (s, _), n in counts.items() if s == scene)
            for scene in scenes
        ]
        say(f"  {label:{width}} " + " ".join(f"{n:>{max(10, len(s))}}" for n, s in zip(cells, scenes, strict=True)))
    for what, items in (("without sound", found.silent), ("sound files without video", found.orphans)):
        if items:
            say(f"{len(items)} {what}: {', '.join(map(str, items[:3]))}{', ...' if len(items) > 3 else ''}")


def _warn_of_few(rows) -> None:
    """Say so if the validation set of seed 0 is small."""
    from avad_hf.corpora.splits import small_validation

    splits = [row.get("split_0") or row["split"] for row in rows]
    labels = [row["anomaly"] for row, split in zip(rows, splits, strict=True) if split == "validation"]
    if all(splits) and None not in [row["anomaly"] for row in rows] and (warning := small_validation(labels)):
        note(warning)


@stoppable("What is stored stays. Run the same command again, and it goes on.")
def extract(
    manifest: Annotated[Path, typer.Argument(help="Manifest of the videos, as scan writes it.", show_default=False)],
    model: Annotated[str, typer.Option(help="Folder or Hub id of the checkpoint whose processor computes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the feature store.", show_default=False)],
    scene: Annotated[str | None, typer.Option(help="Only the videos of this scene.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Clips that go through the encoders together. Default: 1, on a GPU what fits.", min=1),
    ] = None,
    decoders: Annotated[
        int | None,
        typer.Option(help="Videos decoded at the same time. Default: 1, with a GPU up to 4.", min=1),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the first GPU, or cpu.")] = None,
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
    verify: Annotated[
        bool, typer.Option("--verify", help="Compute five videos again and compare; write nothing.")
    ] = False,
) -> None:
    """Compute the encoders' features of every video once and store them for training.

    Of detectors whose networks are trained, what is stored is the frames that they read and the spectrogram of the
    sound.

    Example: avad-hf extract manifest.csv --model checkpoints/new -o features/street

    A run that was stopped goes on where it was. Videos that cannot be read are listed in failed.jsonl and the command
    ends with status 1. With several processes or machines: accelerate launch -m avad_hf.cli extract ...
    """
    if not verify:
        check_folder(output)
    from transformers import AutoProcessor

    from avad_hf import registration  # noqa: F401
    from avad_hf.corpora.loading import load_dataset
    from avad_hf.features.extraction import extract_features, verify_features
    from avad_hf.processes import process_state, share_cores

    quiet()
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
    # A broken checkpoint raises whatever its reader does.
    except Exception as error:
        refuse(str(error) or type(error).__name__)
    try:
        if verify:
            _print_differences(verify_features(dataset, processor, output))
            return
        with counted(output.name, sum(map(len, dataset.values())), hidden=not state.is_main_process) as move:
            done = extract_features(
                dataset,
                processor,
                output,
                clips_per_batch=batch_size,
                decoders=decoders,
                visual_dtype=visual_dtype.value,
                on_progress=move,
            )
    # What is stored stays; out of memory, for example, is nothing that a traceback helps with.
    except Exception as error:
        fail(error if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {error}")
        raise typer.Exit(1) from None
    if state.is_main_process:
        say(f"{output}: {done.num_stored} videos, {done.num_new} of them new.")
        if done.failed:  # each was reported when it failed
            fail(f"{len(done.failed)} videos cannot be read. They are listed in {output / 'failed.jsonl'}.")
    if done.failed:
        raise typer.Exit(1)


def _print_differences(differences: dict[str, float]) -> None:
    for video, difference in differences.items():
        say(f"{video}: largest difference {difference:.2e} of the largest feature")
    # Processors of another kind round differently, in the last places of float32 and the last one of float16.
    if not max(differences.values()) < 2e-3:
        fail("The store differs from what this processor computes. Extract anew into another folder.")
        raise typer.Exit(1)
