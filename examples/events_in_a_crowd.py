"""AVRL from nothing: a drawn crowd, its videos stored, a small detector trained, and the event in a new video.

python examples/events_in_a_crowd.py runs/crowd [number of videos] [epochs]
"""

import sys
from pathlib import Path

from transformers import AutoProcessor, pipeline

import avad_hf
from avad_hf import AvrlForVideoClassification, FeatureDataset, TrainingConfig
from avad_hf.untrained import init


def main(folder: str, num_videos: str = "540", epochs: str = "40") -> None:
    # Your own videos: load_dataset("manifest", data_dir="manifest.csv"), and init("avrl", ..., classes=[...]).
    place = Path(folder)
    corpus = avad_hf.load_dataset("synthetic", "crowd", num_videos=int(num_videos))
    init("avrl", place / "new", size="tiny")
    processor = AutoProcessor.from_pretrained(place / "new")
    avad_hf.extract_features(corpus, processor, place / "store")

    # The published recipe is the profile "avrl"; networks without trained weights learn sooner with this one.
    config = TrainingConfig.from_profile(
        "default",
        data=str(place / "store"),
        model=str(place / "new"),
        output_dir=str(place / "trained"),
        epochs=int(epochs),
        batch_size=12,
        learning_rate=3e-3,
        weight_decay=1e-2,
        patience=None,
    )
    result = avad_hf.train(config)
    print(f"validation top-1 accuracy {result.validation['top1_accuracy']:.3f}, epoch {result.best_epoch}")

    model = AvrlForVideoClassification.from_pretrained(place / "trained")
    found = avad_hf.evaluate(model, FeatureDataset(place / "store", "test"))
    for name, recall in found.figures["events"]["top1_recall"].items():
        print(f"  {name:10} {'no video' if recall is None else f'{recall:.2f}'}")

    detect = pipeline("audio-visual-anomaly", model=str(place / "trained"))
    video = corpus["test"][0]["video"]
    seen = detect(video)
    print(f"{Path(video).name}: {seen['label']}, anomaly score {seen['score']:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
