"""Train the demonstration model that the package ships, on synthetic videos alone: about an hour on two cores.

python examples/train_demo_model.py work src/avad_hf/demo_model

The encoders learn which class is seen in 32 frames and heard in a second. Then they are frozen, and the detector
learns from other videos, whose labels say nothing about time. What was done before is not done again.
"""

import random
import shutil
import sys
from pathlib import Path

import torch
from synthetic_encoders import train_encoders
from synthetic_moments import SCENES

import avad_hf
from avad_hf import AvacaConfig, AvacaForAnomalyDetection, AvacaProcessor, TrainingConfig, VggishFeatureExtractor
from avad_hf.hub.cards import card

WORLD = 101  # which no test, table or demo uses, nor the training of the encoders
NOTICE = "Demonstration model, trained on synthetic (drawn) scenes only: its scores say nothing about real streets."


def main(work: str, output_dir: str) -> None:
    work, output_dir = Path(work), Path(output_dir)
    torch.manual_seed(0)
    random.seed(0)
    encoders = [work / "video_encoder", work / "audio_encoder"]
    if not all(folder.exists() for folder in encoders):
        train_encoders(work)
    processor = AvacaProcessor(VggishFeatureExtractor(), *encoders, size=64, feature_grid=(2, 4))
    sizes = {"visual_size": processor.video_encoder.config.hidden_size, "audio_size": 32}
    config = AvacaConfig(**sizes, hidden_size=32, intermediate_size=64)
    for part in (AvacaForAnomalyDetection(config), processor):
        part.save_pretrained(work / "untrained")

    for scene in SCENES:
        corpus = avad_hf.load_dataset("synthetic", scene, data_dir=work, num_videos=300, world_seed=WORLD)
        avad_hf.extract_features(corpus, processor, work / "features")
    config = TrainingConfig(str(work / "features"), str(work / "detector"), model=str(work / "untrained"))
    result = avad_hf.train(config, resume=True)
    print(f"validation AUC {result.validation['roc_auc']:.3f}, epoch {result.best_epoch} of {result.epochs}")

    shutil.rmtree(output_dir, ignore_errors=True)
    model = AvacaForAnomalyDetection.from_pretrained(result.output_dir)
    model.config.notice = NOTICE
    model.save_pretrained(output_dir)
    processor.save_pretrained(output_dir)
    made = "Made by the steps of examples/train_demo_model.py."
    facts = [NOTICE, made, f"Threshold: {result.threshold_origin}, all synthetic."]
    text = card(
        "avaca",
        {"license": "apache-2.0"},
        title="AVACA demonstration",
        summary="A small AVACA that avad_hf ships, to try the library out.",
        location="demo_model",
        facts=facts,
    )
    (output_dir / "README.md").write_text(text, encoding="utf-8")
    size = sum(path.stat().st_size for path in output_dir.rglob("*") if path.is_file())
    print(f"{output_dir}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
