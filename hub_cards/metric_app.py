"""Type in predictions and references, one row a sample, and see the figures."""

from pathlib import Path

import evaluate
import gradio as gr

# In memory: on the disk, what is refused stays locked, and the next computation waits for it.
metric = evaluate.load(str(Path(__file__).with_name("{{ code }}")), keep_in_memory=True)


def look(rows: list[list[float]]) -> dict:
    """The figures of a table; its empty rows are left out."""
    samples = [(float(p), float(r)) for p, r in rows if p not in (None, "") and r not in (None, "")]
    if not samples:
        raise gr.Error("Type in one row or more: a prediction, and its reference.")
    predictions, references = zip(*samples, strict=True)
    try:
        return metric.compute(predictions=list(predictions), references=list(references))
    except ValueError as error:
        raise gr.Error(str(error)) from error


page = gr.Interface(
    look,
    inputs=gr.Dataframe(headers=["predictions", "references"], datatype="number", type="array", label="samples"),
    outputs=gr.JSON(label="figures"),
    title=metric.name,
    description=f"{metric.description} {metric.inputs_description}",
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
