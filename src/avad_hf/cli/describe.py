"""`avad-hf describe`: what is seen and heard in videos, in words."""

from itertools import groupby
from typing import Annotated

import typer

from avad_hf.files import shown
from avad_hf.registration import DESCRIBERS

from .options import ClipBatchOption, DeviceOption, DType, JsonOption
from .terminal import check_checkpoint, check_device, refuse, say, stage, stoppable
from .videos import CsvOption, OverlayOption, PlotOption, StreamsOption, VideosArgument, work_through

# Stretches that are printed of a video; a person reads no more, and files have them all.
MOST_STRETCHES = 20

EncoderOption = Annotated[
    str,
    typer.Option(
        help="Encoder that has classes: its folder, its Hub id, or the name of a published one, which is downloaded "
        "once and kept."
    ),
]


@stoppable("The results of the videos that were finished are kept. Run the command again for the others.")
def describe(
    videos: VideosArgument,
    video_encoder: EncoderOption = DESCRIBERS["video_encoder"],
    audio_encoder: EncoderOption = DESCRIBERS["audio_encoder"],
    json: JsonOption = None,
    csv: CsvOption = None,
    plot: PlotOption = None,
    overlay: OverlayOption = None,
    batch_size: ClipBatchOption = None,
    streams: StreamsOption = 1,
    device: DeviceOption = None,
    dtype: Annotated[
        DType, typer.Option(help="Precision of the encoders; auto: bfloat16 where the device has it, else float32.")
    ] = DType.auto,
) -> None:
    """Say in words what is seen and heard over time, by the classes that published encoders were trained on.

    Example: avad-hf describe street.mp4 --plot street.png

    No detector is needed, and nothing is judged. A video that cannot be read is reported and skipped; the command
    then ends with status 1.
    """
    check_checkpoint(video_encoder, "--video-encoder")
    check_checkpoint(audio_encoder, "--audio-encoder")
    work_through(
        videos,
        lambda: load(video_encoder, audio_encoder, device, dtype),
        print_description,
        json,
        csv,
        plot,
        overlay,
        batch_size=batch_size,
        streams=streams,
    )


def load(video_encoder: str, audio_encoder: str, device: str | None, dtype: DType):
    """What describes, or a refusal."""
    from avad_hf.describing import load_describer

    check_device(device)
    try:
        return load_describer(video_encoder, audio_encoder, device, dtype.value, on_stage=stage)
    # Corrupt files raise whatever their reader does.
    except Exception as error:
        refuse(str(error) or type(error).__name__)


def print_description(video: str, result: dict, err: bool) -> None:
    """Print the names of the whole video, and the stretches over which the first ones stay the same."""
    sound = "with sound" if result["has_audio"] else "no sound"
    say(f"{shown(video)}: {len(result['clips'])} clips, {result['duration']:.2f} s, {sound}", err=err)
    print_names(result, err)
    stretches = [
        (list(clips), names)
        for names, clips in groupby(result["clips"], lambda clip: [first(clip[sense]) for sense in ("seen", "heard")])
    ]
    for clips, names in stretches[:MOST_STRETCHES]:
        text = " | ".join(filter(None, names))
        say(f"  {clips[0]['start']:8.2f} s to {clips[-1]['end']:8.2f} s  {text}", err=err)
    if len(stretches) > MOST_STRETCHES:
        say(f"  ... and {len(stretches) - MOST_STRETCHES} more stretches: --csv and --json write every clip", err=err)


def print_names(result: dict, err: bool) -> None:
    """Print what is most seen and heard in a whole video."""
    for sense in ("seen", "heard"):
        if names := [f"{name['label']} {name['score']:.2f}" for name in result[sense]]:
            say(f"  {sense}: {'; '.join(names)}", err=err)  # names have commas


def first(names: list[dict]) -> str:
    """The most probable name, or nothing where there is none."""
    return names[0]["label"] if names else ""
