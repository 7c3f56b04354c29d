"""`avad-hf rank`: what is unlike the rest in a folder of videos, without any detector."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from avad_hf.files import shown
from avad_hf.registration import DESCRIBERS

from .options import ClipBatchOption, DeviceOption, DType, JsonOption
from .results import check_json, last_folder, output_folder, write_json
from .terminal import (
    check_checkpoint,
    check_device,
    counted,
    fail,
    hush_libraries,
    note,
    refuse,
    stage,
    stop_for,
    stoppable,
)

ENCODER = (
    "{} encoder: its folder, its Hub id, or the name of a published one, which is downloaded once and kept; not with "
    "--model."
)


@contextmanager
def counted_once_known(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over a number of videos that is not known yet: yields what shows it, and closes it with the last one."""
    with ExitStack() as stack:
        bars: list[Callable[[int, int], None]] = []

        def move(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(counted(label, total)))
            bars[0](done, total)
            if done == total:
                stack.close()
                bars.clear()

        yield move


@stoppable("What is stored stays. Run the same command again, and it goes on.")
def rank(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of videos, however they lie in it.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of ranking.html, ranking.json, ranking.csv and the features.",
            show_default="results/rank-NUMBER",
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Stretches that are ranked.", min=1)] = 20,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint whose encoders compute, in place of the two below.", show_default="none"),
    ] = None,
    video_encoder: Annotated[
        str | None, typer.Option(help=ENCODER.format("Video"), show_default=DESCRIBERS["video_encoder"])
    ] = None,
    audio_encoder: Annotated[
        str | None, typer.Option(help=ENCODER.format("Audio"), show_default=DESCRIBERS["audio_encoder"])
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames a second of folders of pictures.", min=0.001, show_default="as meta.csv says"),
    ] = None,
    batch_size: ClipBatchOption = None,
    device: DeviceOption = None,
    dtype: Annotated[
        DType, typer.Option(help="Precision of the encoders; auto: bfloat16 where the device has it, else float32.")
    ] = DType.auto,
    json: JsonOption = None,
) -> None:
    """Rank what is unlike the rest in a folder of videos, with pictures and words: no detector and no labels needed.

    Example: avad-hf rank /recordings/gate -o results/gate

    Each clip is compared with those of all other recordings, by sight and by sound. Nothing is judged: unlike the rest
    is not yet wrong. Videos of one recording are named as such by a column group in meta.csv (video,group) in the
    folder.

    A run that was stopped goes on where it was, and later runs look at new videos alone. Videos that cannot be read
    are named, and the command ends with status 1.
    """
    check_checkpoint(model)
    check_checkpoint(video_encoder, "--video-encoder")
    check_checkpoint(audio_encoder, "--audio-encoder")
    if model is not None and (video_encoder is not None or audio_encoder is not None):
        refuse("Give --model, whose encoders are taken, or encoders, not both.")
    tell = check_json(json)
    again = None if output is not None else _begun(folder, model, video_encoder, audio_encoder)
    with output_folder(output, "rank", again=again) as directory:
        hush_libraries()
        check_device(device)
        from avad_hf.folders.ranking import rank as rank_folder

        try:
            with counted_once_known(folder.name or str(folder)) as move:
                found = rank_folder(
                    folder,
                    directory,
                    top=top,
                    model=model,
                    video_encoder=video_encoder,
                    audio_encoder=audio_encoder,
                    fps=fps,
                    device=device,
                    dtype=dtype.value,
                    batch_size=batch_size,
                    on_stage=stage,
                    on_progress=move,
                )
        # A broken checkpoint raises whatever its reader does, and what is stored stays.
        except Exception as error:
            stop_for(error)
    from avad_hf.report.ranking import clock, rarity, senses, words

    tell(f"{found.num_clips:,} clips of {found.num_recordings:,} recordings, {clock(found.seconds)} in all.")
    for stretch in found.stretches:
        span = f"{clock(stretch['start'])} to {clock(stretch['end'])}"
        tell(f"{stretch['rank']:3} {shown(stretch['video'])}, {span}: {rarity(stretch)}; {senses(stretch)}")
        for line in words(stretch):
            tell(f"    {line}")
    tell(f"Page: {found.page}")
    for text in found.notes:
        note(text)
    write_json(found.to_dict(), json)
    if found.failed:
        for failure in found.failed:
            fail(shown(f"{failure['id']}: {failure['error']}"))
        fail(f"{len(found.failed)} videos cannot be read and are not ranked.")
        raise typer.Exit(1)


def _begun(folder: Path, model: str | None, video_encoder: str | None, audio_encoder: str | None) -> Path | None:
    """The last folder in results/, if this folder is ranked in it by the same encoders."""
    last = last_folder("rank")
    if last is None:
        return None
    from avad_hf.folders.ranking import ranking_settings
    from avad_hf.folders.settings import has_settings

    try:
        return last if has_settings(last, ranking_settings(folder, model, video_encoder, audio_encoder)) else None
    except ValueError as error:
        refuse(str(error))
