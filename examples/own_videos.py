"""A folder of your own videos as a corpus: listed, checked, divided, stored as features, and shared if you like.

python examples/own_videos.py /data/tunnel checkpoints/new features/tunnel [user/name]

The folder holds a folder for each class, `normal` among them: tunnel/normal/1.mp4, tunnel/fire/2.mp4, ... If it has a
table meta.csv (video,group), videos of one group, such as a day or a camera, stay on one side of every split. The
checkpoint's processor (`avad-hf init avaca checkpoints/new`) makes the features.
"""

import sys
from pathlib import Path

from transformers import AutoProcessor

import avad_hf
from avad_hf.corpora.manifest import write_manifest
from avad_hf.corpora.scan import scan


def main(folder: str, checkpoint: str, store: str, repo_id: str = "") -> None:
    place = Path(folder)
    manifest = place / "manifest.csv"
    if not manifest.exists():
        # All other folders are anomalies, and keep their names as labels.
        found = scan(place, normal=["normal"])
        write_manifest(found.rows, manifest)
        classes = sorted({row["label"] for row in found.rows})
        print(f"{len(found.rows)} videos of the classes {', '.join(classes)}; edit {manifest} as you like")

    corpus = avad_hf.load_dataset("manifest", data_dir=manifest, seed=0)
    for split, rows in corpus.items():
        print(f"{split}: {len(rows)} videos, {sum(rows['anomaly'])} anomalous")

    done = avad_hf.extract_features(corpus, AutoProcessor.from_pretrained(checkpoint), store)
    for failure in done.failed:
        print(f"not stored: {failure['id']}: {failure['error']}")
    print(f"{done.num_stored} videos stored in {store}")

    if repo_id:
        # With the videos inside; plain datasets.load_dataset reads it. Ask those who are seen in them.
        print(avad_hf.push_corpus(corpus, repo_id, private=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
