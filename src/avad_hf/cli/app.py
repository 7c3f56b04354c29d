"""`avad-hf app`: a page on which a video is uploaded or recorded and scored."""

import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from .detect import load_pipeline
from .options import DeviceOption, DType
from .terminal import check_checkpoint, hush_libraries, note, say, stop_for, stoppable

DEMONSTRATION = "the demonstration model"


@stoppable("Uploaded videos are deleted.")
def app(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Checkpoint of a detector: folder or Hub id.", show_default=DEMONSTRATION
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address of this computer to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(help="Port to listen on.", min=1, max=65535, show_default="the first free one from 7860 on"),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Open a page in the browser on which a video is uploaded or recorded, and see its score over time.

    Example: avad-hf app checkpoints/street

    The page and its videos stay on this computer. Without MODEL it shows the demonstration model, whose scores say
    nothing about real streets. Ctrl-C ends it.
    """
    check_checkpoint(model, "MODEL")
    hush_libraries()
    from avad_hf.app import check_address, check_gradio, serve
    from avad_hf.detection.pipeline import DEMO_MODEL

    try:
        check_gradio()
        check_address(host, port)
    except (ImportError, OSError) as error:
        stop_for(error)
    if not _is_local(host):
        note(f"Everybody who can reach {host} can use this page. It asks for no password, and does not encrypt.")
    detect = load_pipeline(str(DEMO_MODEL) if model is None else model, device, DType.auto)
    name = DEMONSTRATION if model is None else model
    # The name of a folder alone, without its path: others may see the page.
    name = Path(name).resolve().name if Path(name).is_dir() else name
    try:
        serve(detect, name, host, port, lambda address: say(f"The page is at {address} (Ctrl-C ends it)."))
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        stop_for(error)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
