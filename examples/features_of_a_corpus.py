"""Draw a small synthetic corpus, compute its features once, and read a batch for training.

python examples/features_of_a_corpus.py checkpoints/new features/synthetic [number of videos]
"""

import sys

import torch

import avad_hf
from avad_hf import AvacaForAnomalyDetection, AvacaProcessor, FeatureDataset


def main(checkpoint: str, store: str, num_videos: str = "40") -> None:
    # Your own videos: load_dataset("manifest", data_dir="manifest.csv"), after `avad-hf scan FOLDER -o manifest.csv`.
    corpus = avad_hf.load_dataset("synthetic", "crossing", num_videos=int(num_videos), seed=0)
    names = corpus["train"].features["label"].names
    for split, rows in corpus.items():
        print(f"{split}: {len(rows)} videos, {sum(rows['anomaly'])} anomalous, first: {names[rows[0]['label']]}")

    processor = AvacaProcessor.from_pretrained(checkpoint)
    done = avad_hf.extract_features(corpus, processor, store)
    print(f"{done.num_stored} videos stored, {done.num_new} of them new, {len(done.failed)} failed")

    train = FeatureDataset(store, split="train", seed=0)
    items = [train[index] for index in range(min(4, len(train)))]
    batch = AvacaProcessor.pad(items)
    labels = torch.stack([item["labels"] for item in items])
    loss = AvacaForAnomalyDetection.from_pretrained(checkpoint)(**batch, labels=labels).loss
    print(f"loss of an untrained model on {len(items)} synthetic videos: {loss:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
