"""The published encoders in a new AVACA: their original files converted, compared, and put to use.

python examples/convert_encoders.py checkpoints [SLOWFAST_8x8_R50.pyth vggish-10086976.pth]

Without files they are downloaded from their authors (140 MB and 290 MB). The detector on top is untrained.
"""

import sys
from pathlib import Path

from avad_hf import SlowFastForVideoClassification, VideoFeatureExtractor
from avad_hf.convert.encoders import convert
from avad_hf.untrained import init


def main(folder: str, slowfast: str | None = None, vggish: str | None = None) -> None:
    place = Path(folder)
    for name, source in (("slowfast", slowfast), ("vggish", vggish)):
        done = convert(name, source, place / name)
        # Every weight had its place, or there would have been an error; where the original is installed, outputs too.
        print(f"{name}: {done.num_parameters:,} weights of {done.origin}. {done.parity or 'Nothing to compare with.'}")

    # An encoder works alone as well, with its classifier and what reads videos for it.
    classifier = SlowFastForVideoClassification.from_pretrained(place / "slowfast")
    reader = VideoFeatureExtractor.from_pretrained(place / "slowfast")
    print(f"{classifier.config.num_labels} classes from {reader.num_frames} frames of {reader.size} pixels")

    made = init("avaca", place / "avaca", video_encoder=place / "slowfast", audio_encoder=place / "vggish")
    print(f"{place / 'avaca'}: an untrained detector of clips of {made.processor.clip_length} frames, to train from")


if __name__ == "__main__":
    main(*sys.argv[1:])
