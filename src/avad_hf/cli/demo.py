"""`avad-hf demo`: a first look without any download."""

from pathlib import Path
from typing import Annotated

import typer

from .terminal import check_folder, hush_libraries, note, say, stage, stop_for, stoppable


@stoppable("What was rendered and computed is used again by the same command.")
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for everything; what is there is used again.")
    ] = Path("avad-hf-demo"),
    train: Annotated[bool, typer.Option("--train", help="Train the detector anew on the way.")] = False,
    num_videos: Annotated[int, typer.Option(help="Unseen videos of each of two scenes.", min=4)] = 16,
) -> None:
    """Render unseen synthetic videos, find the anomalies in them, and draw timelines, overlays and a report.

    Example: avad-hf demo -o first-look

    It also fits a detector to normal videos alone, which says why an event is one.

    The model is a small one that was trained on synthetic videos alone. What it does here says nothing about real
    streets.
    """
    check_folder(output)
    hush_libraries()
    from avad_hf.demo import demonstrate

    try:
        demonstration = demonstrate(output, train, num_videos, on_stage=stage)
    except (OSError, ValueError, RuntimeError) as error:
        stop_for(error)
    results = {"with sound": demonstration.with_sound, "with its sound set to zero": demonstration.without_sound}
    say(f"\n{demonstration.with_sound.figures['num_videos']} unseen synthetic videos, AUC of videos:")
    for name, result in results.items():
        scenes = ", ".join(f"{scene} {row['roc_auc']:.3f}" for scene, row in result.figures["scenes"].items())
        say(f"  {name}: {result.figures['video']['roc_auc']:.3f} ({scenes})")
    say("\nA detector that was fitted to normal videos alone, and why:")
    for words in demonstration.reasons or ["it finds nothing in this video"]:
        say(f"  {words}")
    for path in demonstration.files:
        say(f"  {path}")
    for words in demonstration.with_sound.figures["notes"]:
        note(words)
