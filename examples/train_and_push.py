"""Train AVACA on stored features, measure it on videos that it has not seen, and share it with these figures.

python examples/train_and_push.py features/street checkpoints/street [user/name] [epochs]

Log in before: `hf auth login`. Without a name nothing leaves the machine. The store is what `avad-hf extract` wrote,
or the Hub id of one; with the untrained checkpoint that made it as `model`, the encoders go along.
"""

import sys
from pathlib import Path

import avad_hf
from avad_hf import AvacaForAnomalyDetection, FeatureDataset, TrainingConfig
from avad_hf.report.page import write_report


def main(store: str, output_dir: str, repo_id: str = "", epochs: str = "40", model: str | None = None) -> None:
    config = TrainingConfig.from_profile(
        "default", data=store, output_dir=output_dir, epochs=int(epochs), split_seed=0, model=model
    )
    result = avad_hf.train(config)
    print(f"validation AUC {result.validation['roc_auc']:.3f}, epoch {result.best_epoch} of {result.epochs}")

    detector = AvacaForAnomalyDetection.from_pretrained(output_dir)
    found = avad_hf.evaluate(detector, FeatureDataset(store, "test", seed=0))
    report = Path(output_dir).with_name(f"{Path(output_dir).name}-report")
    found.save(report)
    page = write_report(found.figures, found.videos, report, "Test videos")
    print(f"test AUC {found.figures['video']['roc_auc']:.3f}, {page}")

    if repo_id:
        # The card shows these figures and no others; of other weights they would be refused.
        print(avad_hf.push_checkpoint(output_dir, repo_id, private=True, reports=[report]))


if __name__ == "__main__":
    main(*sys.argv[1:])
