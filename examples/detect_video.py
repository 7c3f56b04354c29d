"""Score a video clip by clip, and look at what AVACA attended to in its most anomalous clip.

python examples/detect_video.py VIDEO CHECKPOINT      (a folder, or a Hub id)
"""

import sys

import torch
from transformers import AutoModelForVideoClassification, AutoProcessor

import avad_hf  # noqa: F401  (makes the Auto classes know AVACA)


def main(video: str, checkpoint: str) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForVideoClassification.from_pretrained(checkpoint).eval()

    # One pass through the frozen encoders; the features can be kept and scored again.
    features = processor(video)
    with torch.no_grad():
        outputs = model(**features, output_attentions=True)

    scores = model.scores(outputs)[0]
    for (start, end), score in zip(features["clip_times"][0].tolist(), scores.tolist(), strict=True):
        print(f"{start:7.2f} s to {end:7.2f} s  {score:.3f}")

    # The transformer of the audio path: which changes of the sound each patch of the picture listens to.
    _, listening = outputs.attentions
    highest = scores.argmax()
    step = listening[0, highest].mean(dim=(0, 1)).argmax().item()
    print(f"Highest clip {highest.item()}: most attention to the sound between frames {step + 1} and {step + 2}")


if __name__ == "__main__":
    main(*sys.argv[1:])
