"""The page on which a video is uploaded or recorded and scored, in gradio: of `avad-hf app`, and of a Space."""

import os
import socket
import tempfile
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from avad_hf.detection.events import write_json
from avad_hf.report.html import notes_box, text
from avad_hf.report.overlay import render_overlay
from avad_hf.report.result import result_part
from avad_hf.synthetic.world import plan_world, render_clip

# How long a video is kept after it was last used (s), and how often it is looked for old ones: long enough to try
# another threshold and to watch the overlay.
KEEP_S, SWEEP_S = 600, 60
# An hour in full HD. What is larger belongs to `avad-hf detect`, which needs no second copy of it.
MOST_BYTES = "4gb"
# Who waits behind so many others is told to come back: videos are scored one at a time, since they share the cores.
MOST_WAITING = 20
# A world of whose videos the demonstration model has seen none (examples/train_demo_model.py draws others), and two of
# its scenes: one where anomalies are mostly seen, and one where they are mostly heard.
WORLD, SCENES, WORLD_VIDEOS = 903, ("crossing", "underpass"), 8
# Seconds that an error is shown: until somebody closes it, since a message that goes away by itself is missed.
STAYS = None
ABOUT = (
    "Upload or record a video with its sound, and see its anomaly score over time; a video that the browser cannot "
    "play can be scored too. <strong>A score is no ground for a decision about a person.</strong> Do not upload "
    "footage of people without their consent. Videos are scored on the computer that serves this page. They are sent "
    "nowhere, and are deleted about {minutes} minutes after their last use."
)
# Colours are the theme's, so that it works in the dark too.
CSS = """
.found { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.found .verdict { margin: 0; font-size: 1.25rem; } .found p { margin: .4rem 0; }
.found .soft, .found caption, .found thead th { color: var(--body-text-color-subdued); }
.notes { margin: .8rem 0; padding: .7rem 1rem; border-left: .35rem solid #d99a00;
  background: var(--background-fill-secondary); color: var(--body-text-color); }
.notes ul { margin: .2rem 0 0; padding-left: 1.2rem; list-style: disc; }
.found .scroll { display: block; overflow-x: auto; margin: .6rem 0; }
.found img { display: block; width: 100%; height: auto; padding: .4rem; background: #fff; border-radius: .4rem; }
.found table { width: 100%; border-collapse: collapse; } .found caption { text-align: left; font-weight: 600; }
.notes[role=alert] { border-color: #c62828; } .found tr { border: 0; }
.found th, .found td { padding: .35rem .5rem; border: 0; border-bottom: 1px solid var(--border-color-primary);
  text-align: left; overflow-wrap: normal; }
.found .plot { display: block; } .found .plot input, .found .hint { display: none; }
@media (max-width: 48rem) {
  .found .plot input { position: absolute; display: inline; opacity: 0; }
  .found .plot input:focus-visible ~ .scroll { outline: 2px solid currentColor; }
  .found .hint { display: block; font-size: .85rem; color: var(--body-text-color-subdued); }
  .found .plot input:checked ~ .scroll img { width: 60rem; max-width: none; } }
"""


def check_gradio() -> None:
    """See that gradio is installed, without importing it: it writes into its folder of uploads when it is.

    Raises:
        ImportError: If it is not.
    """
    if find_spec("gradio") is None:
        raise ImportError("The page needs gradio. Install it with `pip install 'avad-hf[app]'`.")


def draw_examples(folder: Path) -> dict[str, Path]:
    """Draw videos of the synthetic world to try the page with: of each scene one with an anomaly, and one normal one.

    Args:
        folder: Where they go.

    Returns:
        Their files, by what they show.
    """
    examples = {}
    for scene in SCENES:
        plans = plan_world(scene, WORLD_VIDEOS, WORLD)
        chosen = [next(plan for plan in plans if (plan.label == "normal") == normal) for normal in (False, True)]
        for plan in chosen if scene == SCENES[0] else chosen[:1]:
            path = folder / f"synthetic-{plan.stem}.mp4"
            render_clip(plan, path)
            examples[f"{scene}: {plan.label.replace('_', ' ')}"] = path
    return examples


def keep(video: str) -> None:
    """Let a video that is in use not count as old: gradio reads the time of its inode, which this sets to now."""
    times = os.stat(video)
    os.utime(video, ns=(times.st_atime_ns, times.st_mtime_ns))


def build_page(detect: Any, name: str, examples: dict[str, Path]) -> Any:
    """Make the page, as gradio's `Blocks`.

    Args:
        detect: The pipeline that scores.
        name: What its detector is called.
        examples: Videos to try it with, by what they show.

    Raises:
        ImportError: If gradio is not installed.
    """
    check_gradio()
    import gradio as gr

    # As the slider shows the detector's own threshold, which has more digits; where it stands, that one holds.
    own_threshold = round(detect.model.config.threshold, 3)
    notices = [*([detect.model.config.notice] if detect.model.config.notice else []), *detect.processor.notices]
    hidden = gr.update(value=None, visible=False)

    def words_of(error: Exception, video: str) -> str:
        """What an error of the library says, without the folders of this computer."""
        return text(str(error).replace(f"{Path(video).parent}{os.sep}", "") or type(error).__name__)

    def look(video: str | None, threshold: float, words: bool, progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008
        if video is None:
            raise gr.Error(
                "There is no video yet. Upload or record one, or choose an example.", STAYS, print_exception=False
            )

        def show_progress(seconds: float, duration: float | None) -> None:
            keep(video)
            of = f" of {duration:.0f}" if duration else ""
            progress(min(1.0, seconds / duration) if duration else None, desc=f"{seconds:.0f}{of} s are scored")

        chosen = None if threshold == own_threshold else threshold
        try:
            result = detect(video, threshold=chosen, describe=words, on_progress=show_progress)
            found = result_part(result, video, Path(video).name, notices)
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            # In the page, and not as gr.Error: gradio takes that away together with its own "Video not playable".
            box = f'<div class="notes" role="alert"><strong>Error</strong><p>{words_of(error, video)}</p></div>'
            return [box, *clear()[1:]]
        # A folder that is swept with the video; others may have uploaded the same file.
        path = Path(tempfile.mkdtemp(dir=Path(video).parent)) / f"{Path(video).stem}.json"
        write_json({Path(video).name: result}, path)
        return [found, (video, result), gr.update(visible=True), str(path), hidden]

    def draw(kept: tuple[str, dict[str, Any]] | None, progress: Any = gr.Progress()) -> str:  # noqa: B008
        if kept is None or not Path(kept[0]).exists():
            raise gr.Error("The video was deleted meanwhile. Upload it again.", STAYS, print_exception=False)
        video, result = kept

        def show_progress(seconds: float) -> None:
            keep(video)
            progress(min(1.0, seconds / result["duration"]), desc="drawing")

        path = Path(tempfile.mkdtemp(dir=Path(video).parent)) / f"{Path(video).stem}-overlay.mp4"
        try:
            render_overlay(result, video, path, on_progress=show_progress)
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            raise gr.Error(words_of(error, video), STAYS, print_exception=False) from error
        return str(path)

    def clear() -> list[Any]:
        return ["", None, gr.update(visible=False), None, hidden]

    with gr.Blocks(
        title="Audio-visual anomaly detection", analytics_enabled=False, delete_cache=(SWEEP_S, KEEP_S)
    ) as page:
        gr.HTML(
            f"<h1>Audio-visual anomaly detection</h1><p>{ABOUT.format(minutes=KEEP_S // 60)}</p>"
            f"<p>Detector: {text(name)}</p>{notes_box(notices)}"
        )
        with gr.Row():
            with gr.Column(scale=3):
                video = gr.Video(
                    label="Video",
                    sources=["upload", "webcam"],
                    include_audio=True,
                    # Mirrored, a recording would be written again by a program that may not be there.
                    webcam_options=gr.WebcamOptions(mirror=False),
                )
            with gr.Column(scale=2):
                threshold = gr.Slider(
                    0, 1, own_threshold, step=0.001, label="Threshold", info="From this score on a clip is anomalous."
                )
                has_words = bool(getattr(detect.processor, "classes", {}))
                words = gr.Checkbox(has_words, label="Say what is seen and heard", visible=has_words)
                button = gr.Button("Find anomalies", variant="primary")
                gr.Examples(
                    [[str(path)] for path in examples.values()],
                    [video],
                    label="Examples, drawn by this program (synthetic)",
                    example_labels=list(examples),
                )
        found, kept = gr.HTML(), gr.State(time_to_live=KEEP_S)
        with gr.Column(visible=False) as more:
            with gr.Row():
                draw_button = gr.Button("Draw the result into the video")
                download = gr.DownloadButton("Download the result (JSON)")
            # Without a label, which would hide the notes in the picture, and without a button that shares it.
            overlay = gr.Video(
                label="Video with the result",
                show_label=False,
                interactive=False,
                visible=False,
                buttons=["download"],
            )
        one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "networks"}
        video.change(clear, None, [found, kept, more, download, overlay], queue=False, show_progress="hidden")
        button.click(look, [video, threshold, words], [found, kept, more, download, overlay], **one_at_a_time)
        shown = draw_button.click(lambda: gr.update(visible=True), None, [overlay], queue=False)
        shown.then(draw, [kept], [overlay], **one_at_a_time)
    page.queue(max_size=MOST_WAITING)
    return page


def check_address(host: str, port: int | None) -> None:
    """See that a page can listen there: gradio does not say why it cannot.

    Raises:
        OSError: If the port is in use, or the address is none of this computer's.
    """
    try:
        socket.create_server((host, port or 0)).close()
    except OSError as error:
        where = f"{host}, port {port}" if port else host
        why = str(error.strerror).partition(" (")[0]
        raise OSError(
            f"The page cannot listen on {where}: {why}. Give another port, or an address of this computer."
        ) from error


def serve(
    detect: Any,
    name: str,
    host: str | None = None,
    port: int | None = None,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Show the page until this process is told to end; what was uploaded is deleted then.

    Args:
        detect: The pipeline that scores.
        name: What its detector is called.
        host: Address of this computer to listen on; by default what ``GRADIO_SERVER_NAME`` says, which Spaces set, or
            127.0.0.1.
        port: By default the first free one from 7860 on.
        on_ready: Told the address of the page.

    Raises:
        ImportError: If gradio is not installed.
        OSError: If the port is in use, or the address is none of this computer's.
    """
    check_gradio()
    if host is not None:
        check_address(host, port)
    with tempfile.TemporaryDirectory(prefix="avad-hf-app-") as folder:
        # Where gradio keeps uploads; it looks when it is imported, and when the page is made.
        os.environ["GRADIO_TEMP_DIR"] = folder
        from gradio.themes import Default

        page = build_page(detect, name, draw_examples(Path(folder)))
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=False,
                prevent_thread_lock=True,
                quiet=True,
                show_error=True,
                footer_links=[],
                # Else the browser keeps every run.
                run_history=False,
                max_file_size=MOST_BYTES,
                # In all places the same program, without Node.
                ssr_mode=False,
                enable_monitoring=False,
                # The computer's own letters: none are fetched.
                theme=Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=CSS,
            )
            on_ready(address)
            threading.Event().wait()
        finally:
            page.close(verbose=False)


__all__ = ["build_page", "check_address", "check_gradio", "draw_examples", "serve"]
