"""Encoders as engines of OpenVINO, in turn: seconds, relative error, and what exporting takes.

python tests/benchmarks/bench_engines.py FOLDER DETECTOR [DETECTOR ...] [--manifest CSV] [--rounds 5]

Every detector's checkpoint is exported in each precision into FOLDER, unless it was before, calibrated on videos of
the synthetic world or on those of a manifest. Then one clip is encoded by torch and by each engine in turn: medians of
the rounds, the relative error of the features beside torch in float32, and what `parity.json` says of scores.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoProcessor

import avad_hf  # noqa: F401  (makes the architectures known)
from avad_hf.export.engines import FORMATS, export_engines
from avad_hf.media.sources import open_media
from avad_hf.synthetic.world import render_world


def exported(detector: str, folder: Path, precision: str, manifest: str | None) -> Path:
    """The folder of engines in a precision, made now if it is not there."""
    place = folder / f"{Path(detector).name}-{precision}"
    if not place.exists():
        seconds, of_processor = time.perf_counter(), time.process_time()
        export_engines(detector, place, precision=precision, calibrate=[manifest] if manifest else [])
        seconds, of_processor = time.perf_counter() - seconds, time.process_time() - of_processor
        print(f"{place.name}: exported in {seconds:.0f} s, {of_processor:.0f} s of the processor")
    report = json.loads((place / "parity.json").read_text())
    print(
        f"{place.name}: {report['num_clips']} clips of {report['num_videos']} videos compared, largest difference of "
        f"a score {report['score_difference']:.4f}"
    )
    return place


@torch.no_grad()
def compare(detector: str, places: dict[str, Path], video: str, rounds: int) -> None:
    """Time the encoders of a checkpoint and of its engines on a clip."""
    forms = {"torch float32": AutoProcessor.from_pretrained(detector).to("cpu", "float32")}
    forms |= {f"OpenVINO {precision}": AutoProcessor.from_pretrained(place) for precision, place in places.items()}
    with open_media(video) as media:
        clip = next(iter(next(iter(forms.values())).clips(media)))
    steps = {
        "video encoder": lambda processor: processor.see(
            torch.stack([one.pixels for one in processor.pictures(clip)])
        ),
        # Frames that were heard before are not heard again, so that they are others each time.
        "audio encoder": lambda processor: processor.hear([replace(clip, frames=tuple(map(replace, clip.frames)))]),
    }
    for part, step in steps.items():
        seconds: dict[str, list[float]] = {name: [] for name in forms}
        found = {}
        for _ in range(1 + rounds):  # the first one prepares
            for name, processor in forms.items():
                begin = time.perf_counter()
                found[name] = next(iter(step(processor).values())).float()
                seconds[name].append(time.perf_counter() - begin)
        expected = found["torch float32"]
        slowest = statistics.median(seconds["torch float32"][1:])
        for name, times in seconds.items():
            median, error = statistics.median(times[1:]), float((found[name] - expected).norm() / expected.norm())
            print(
                f"    {part}, {name}: {median:.4f} s a clip, {slowest / median:.2f} x torch, "
                f"relative error {error:.1e}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("detectors", nargs="+")
    parser.add_argument("--manifest")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    videos = options.folder / "videos"
    (plan,) = render_world(videos, "crossing", 1, 23, progress=False)
    for detector in options.detectors:
        print(detector)
        places = {one: exported(detector, options.folder, one, options.manifest) for one in FORMATS["openvino"]}
        compare(detector, places, str(videos / f"{plan.stem}.mp4"), options.rounds)


if __name__ == "__main__":
    main()
