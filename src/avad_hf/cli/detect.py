"""`avad-hf detect`: scores, pictures and overlays of videos."""

from typing import Annotated

import typer

from avad_hf.files import shown
from avad_hf.registration import DESCRIBERS, architectures

from .describe import load as load_describer
from .describe import print_description, print_names
from .options import AnonymiseOption, AudioPath, ClipBatchOption, DeviceOption, DType, GateOption, JsonOption
from .terminal import check_checkpoint, check_device, note, refuse, say, stoppable
from .videos import CsvOption, OverlayOption, PlotOption, StreamsOption, VideosArgument, work_through

# How to get a detector, in one line, for those who have none.
NO_MODEL = (
    "Without --model nothing is judged: this says what is seen and heard. For a detector of your own: avad-hf scan "
    f"FOLDER -o M.csv; avad-hf init {next(iter(architectures('init')))} NEW --video-encoder "
    f"{DESCRIBERS['video_encoder']} --audio-encoder {DESCRIBERS['audio_encoder']}; avad-hf extract M.csv --model NEW "
    "-o STORE; avad-hf train STORE --model NEW -o DIR."
)


@stoppable("The results of the videos that were finished are kept. Run the command again for the others.")
def detect(
    videos: VideosArgument,
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint of a detector: folder or Hub id. Without one videos are described, and not scored.",
            show_default="none",
        ),
    ] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    plot: PlotOption = None,
    overlay: OverlayOption = None,
    anonymise: AnonymiseOption = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="Say what is seen and heard too (encoders that have classes).")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Say why events are events: by sight or by sound, what became likelier, and where (--overlay).",
        ),
    ] = False,
    scene: Annotated[
        str | None,
        typer.Option(
            help="Scene (camera or place) of the videos, whose own threshold is used.", show_default="no scene"
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Score from which on a clip is anomalous.", min=0, max=1, show_default="the model's"),
    ] = None,
    audio_path: Annotated[
        AudioPath | None,
        typer.Option(help="How sound is used (detectors with an audio path).", show_default="the model's"),
    ] = None,
    gate: GateOption = False,
    batch_size: ClipBatchOption = None,
    streams: StreamsOption = 1,
    device: DeviceOption = None,
    dtype: Annotated[
        DType, typer.Option(help="Precision of the networks; auto: bfloat16 where the device has it, else float32.")
    ] = DType.auto,
) -> None:
    """Score videos clip by clip, or name what happens in them, and list the events.

    Example: avad-hf detect street.mp4 --model checkpoints/street --plot street.png

    A folder stands for the videos in it. A video that cannot be read is reported and skipped; the command then ends
    with status 1.
    """
    outputs = {"json": json, "csv": csv, "plot": plot, "overlay": overlay, "anonymise": anonymise}
    shared = {"batch_size": batch_size, "streams": streams}
    if model is None:
        given = {"--threshold": threshold, "--audio-path": audio_path, "--scene": scene, "--explain": explain or None}
        given |= {"--gate": gate or None}
        for option, value in given.items():
            if value is not None:
                refuse(f"{option} is an option of detectors. Give one: --model DIR.")
        work_through(videos, lambda: _load_describer(device, dtype), print_description, **outputs, **shared)
        return
    check_checkpoint(model)
    work_through(
        videos,
        lambda: load_pipeline(model, device, dtype),
        _print_result,
        **outputs,
        **shared,
        threshold=threshold,
        audio_path=audio_path and audio_path.value,
        scene=scene,
        describe=describe,
        explain=explain,
        gate=gate,
    )


def _load_describer(device: str | None, dtype: DType):
    note(NO_MODEL)
    return load_describer(*DESCRIBERS.values(), device, dtype)


def load_pipeline(model: str, device: str | None, dtype: DType):
    """Load the pipeline of a checkpoint, or end the command with words."""
    from transformers import pipeline

    from avad_hf.hub.errors import explain

    check_device(device)
    try:
        return pipeline("audio-visual-anomaly", model=model, device=device, dtype=dtype.value, trust_remote_code=False)
    # Corrupt files raise whatever their reader does; transformers puts whole tracebacks into the message, of which the
    # last line says what is wrong.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        refuse(f"{model} cannot be loaded: {explain(error, model) or lines[-1]}")


def _print_result(video: str, result: dict, err: bool) -> None:
    sound = "with sound" if result["has_audio"] else "no sound"
    lines = [
        f"{shown(video)}: {result['label'] or 'not judged'}, score {result['score']:.3f} (threshold "
        f"{result['threshold']:.4g}), {len(result['clips'])} clips, {result['duration']:.2f} s, {sound}"
    ]
    for event in result["events"]:
        lines.append(
            f"  {event['start']:8.2f} s to {event['end']:8.2f} s  {event['label']}, score {event['score']:.3f}, "
            f"highest at {event['peak']:.2f} s{_at_peak(event)}"
        )
        lines += [f"            {words}"] if (words := _reason(event)) else []
    say("\n".join(lines), err=err)
    if "seen" in result:
        print_names(result, err)


def _at_peak(event: dict) -> str:
    """What is most seen and heard where an event is highest."""
    names = [names[0]["label"] for names in (event.get("seen"), event.get("heard")) if names]
    return f" ({' | '.join(names)})" if names else ""


def _reason(event: dict) -> str:
    """Why an event is one, on one line."""
    from avad_hf.detection.explaining import reason

    words = [reason(event.get("why"))]
    if nearest := event.get("why", {}).get("nearest"):
        words.append(f"nearest normal clip: {nearest[0]['id']} at {nearest[0]['start']:.2f} s")
    return "; ".join(filter(None, words))
