"""Upload a video with its sound, and see its anomaly score over time."""

from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr
from PIL import Image
from transformers import pipeline

import avad_hf  # noqa: F401  (makes the pipeline task known)
from avad_hf.report.timeline import plot_timeline

MODEL = "{{ model }}"
detect = pipeline("audio-visual-anomaly", model=MODEL)


def look(video: str, threshold: float) -> tuple[Image.Image, dict]:
    """The timeline of a video, and everything that was found."""
    result = detect(video, threshold=threshold)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "timeline.png"
        plot_timeline(result, video, path, title=Path(video).name)
        return Image.open(path).convert("RGB"), result


page = gr.Interface(
    look,
    inputs=[gr.Video(sources=["upload"]), gr.Slider(0, 1, detect.model.config.threshold, label="threshold")],
    outputs=[gr.Image(label="score over time"), gr.JSON(label="result")],
    title="Audio-visual anomaly detection",
    description=f"Scored by {MODEL}. A score is no ground for a decision about a person.",
    flagging_mode="never",
    delete_cache=(600, 600),  # seconds: looks that often for uploads that are older
)

if __name__ == "__main__":
    page.launch()
