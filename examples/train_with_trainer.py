"""Train AVACA with the Trainer of transformers, on features that `avad-hf extract` stored.

python examples/train_with_trainer.py features/synthetic checkpoints/trained [epochs]

`avad-hf train` does more: balanced batches, the threshold, exact resuming. This is for those who know Trainer.
"""

import sys

import numpy as np
from transformers import EvalPrediction, Trainer, TrainingArguments

from avad_hf import AvacaConfig, AvacaForAnomalyDetection, FeatureDataset
from avad_hf.metrics.modules import AnomalyScores


def video_figures(prediction: EvalPrediction) -> dict[str, float]:
    # Trainer pads logits of fewer clips with -100, whose score is 0.
    scores = 1 / (1 + np.exp(-prediction.predictions.astype(np.float64).max(axis=1)))
    return AnomalyScores().compute(predictions=scores, references=prediction.label_ids.astype(int))


def main(store: str, output_dir: str, epochs: str = "20") -> None:
    train, validation = FeatureDataset(store, "train"), FeatureDataset(store, "validation")
    item = train[0]
    config = AvacaConfig(
        visual_size=item["visual_features"].shape[1],
        audio_size=item["audio_features"].shape[2],
        num_audio_steps=item["audio_features"].shape[1],
    )
    arguments = TrainingArguments(
        output_dir=output_dir,
        num_train_epochs=float(epochs),
        learning_rate=3e-4,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=16,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="roc_auc",
        label_names=["labels"],
        remove_unused_columns=False,
        seed=0,
    )
    trainer = Trainer(
        model=AvacaForAnomalyDetection(config),
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=train.collate,
        compute_metrics=video_figures,
    )
    trainer.train()
    trainer.save_model(output_dir)
    print(f"best validation AUC: {trainer.state.best_metric:.3f}, saved to {output_dir}")


if __name__ == "__main__":
    main(*sys.argv[1:])
