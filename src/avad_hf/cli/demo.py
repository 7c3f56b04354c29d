"""`avad-hf demo`: a first look without any download."""

from pathlib import Path
from typing import Annotated

import typer

from .terminal import check_folder, note, quiet, refuse, say, stage, stoppable


@stoppable("What was rendered and computed is used again by the same command.")
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything.")] = Path("avad-hf-demo"),
    train: Annotated[bool, typer.Option("--train", help="Train the detector anew on the way.")] = False,
    num_videos: Annotated[int, typer.Option(help="Unseen videos of each of two scenes.", min=4)] = 16,
) -> None:
    """Render unseen synthetic videos, find the anomalies in them, and draw timelines, an overlay and a report.

    Example: avad-hf demo -o first-look

    The model is a small one that was trained on synthetic videos alone. What it does here says nothing about real
    streets.
    """
    check_folder(output)
    from avad_hf.demo import demonstrate

    quiet()
    try:
        found = demonstrate(output, train, num_videos, on_stage=stage)
    except (OSError, ValueError, RuntimeError) as error:
        refuse(str(error))
    say(f"\n{found.with_sound.figures['num_videos']} unseen synthetic videos, AUC of videos:")
    for name, result in (("with sound", found.with_sound), ("with its sound set to zero", found.without_sound)):
        scenes = ", ".join(f"{scene} {row['roc_auc']:.3f}" for scene, row in result.figures["scenes"].items())
        say(f"  {name}: {result.figures['video']['roc_auc']:.3f} ({scenes})")
    for path in found.files:
        say(f"  {path}")
    for words in found.with_sound.figures["notes"]:
        note(words)
