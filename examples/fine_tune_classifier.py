"""Teach a video encoder the classes of your own videos, by the Trainer of transformers.

python examples/fine_tune_classifier.py videos/manifest.csv checkpoints/slowfast checkpoints/classifier [epochs]

The checkpoint holds a video encoder of this library with its `VideoFeatureExtractor`; the classifier is new. What
comes out works with `pipeline("video-classification")`.
"""

import sys

import numpy as np
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoModelForVideoClassification,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

import avad_hf
from avad_hf.metrics.modules import EventClasses


def main(manifest: str, checkpoint: str, output_dir: str, epochs: str = "10") -> None:
    corpus = avad_hf.load_dataset("manifest", data_dir=manifest)
    names = corpus["train"].features["label"].names
    extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    model = AutoModelForVideoClassification.from_pretrained(
        checkpoint, id2label=dict(enumerate(names)), ignore_mismatched_sizes=True
    )

    def read(rows: dict) -> dict:
        pixels = [extractor(video)["pixel_values_videos"][0] for video in rows["video"]]
        return {"pixel_values_videos": pixels, "labels": rows["label"]}

    def collate(items: list[dict]) -> dict[str, torch.Tensor]:
        return {
            "pixel_values_videos": torch.stack([item["pixel_values_videos"] for item in items]),
            "labels": torch.tensor([item["labels"] for item in items]),
        }

    def figures(prediction: EvalPrediction) -> dict[str, float]:
        guesses = np.argmax(prediction.predictions, axis=1)
        found = EventClasses().compute(predictions=guesses, references=prediction.label_ids, classes=names)
        return {"accuracy": found["overall"]}

    corpus = corpus.with_transform(read)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=output_dir,
            num_train_epochs=float(epochs),
            learning_rate=1e-4,
            per_device_train_batch_size=4,
            per_device_eval_batch_size=4,
            eval_strategy="epoch",
            save_strategy="no",
            remove_unused_columns=False,
            seed=0,
        ),
        train_dataset=corpus["train"],
        eval_dataset=corpus["validation"],
        data_collator=collate,
        compute_metrics=figures,
        processing_class=extractor,
    )
    trainer.train()
    trainer.save_model(output_dir)
    print(f"validation accuracy {trainer.evaluate()['eval_accuracy']:.3f}, saved to {output_dir}")


if __name__ == "__main__":
    main(*sys.argv[1:])
