"""Features of a corpus by several processes, on one machine or many; each takes its part, and no two write one file.

accelerate launch examples/extract_distributed.py manifest.csv checkpoints/new features/street
ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 examples/extract_distributed.py ...

The second line is for two processes without a GPU. Stopped at any moment, the same command goes on where it was.
`avad-hf extract` does this too; here it is in Python, for corpora and encoders of your own making.
"""

import sys

from transformers import AutoProcessor

import avad_hf
from avad_hf.processes import process_state


def main(manifest: str, checkpoint: str, store: str) -> None:
    state = process_state()  # which of the processes this is, and the device that it has for itself
    corpus = avad_hf.load_dataset("manifest", data_dir=manifest)
    processor = AutoProcessor.from_pretrained(checkpoint).to(state.device)

    done = avad_hf.extract_features(
        corpus,
        processor,
        store,
        on_progress=lambda done, total: print(f"process {state.process_index}: {done} of {total}", flush=True),
    )
    # Every process has the whole result.
    if state.is_main_process:
        print(f"{done.num_stored} videos stored by {state.num_processes} processes, {len(done.failed)} failed")
        # Somewhere else: FeatureDataset(store).push_to_hub("user/name"), then FeatureDataset("user/name").


if __name__ == "__main__":
    main(*sys.argv[1:])
