"""Are promised alarms kept from features to a week? Simulated cameras: fitted, calibrated on other days, then watched.

python tests/benchmarks/bench_promises.py [number of runs, 25] [METHOD ...]

Two cameras, 10 s a clip, of which 8 numbers are seen and 4 are heard: `steady`, correlated Gaussian features with a
daily rhythm; `busy`, features around five moving means with heavy tails, and ordinary passers-by, 40 a day, of which
each lasts for some clips and none is like another. Each run fits a detector to two days, finds the threshold for one
alarm a day on five other days, and counts the alarms of a fresh week: were they within the interval that was stated?
"""

import sys
import time

import numpy as np
import torch

from avad_hf.metrics.alarms import alarm_threshold
from avad_hf.metrics.event_streams import Recording, count_events
from avad_hf.models.normality.fitting_normality import NormalFootage
from avad_hf.registration import ARCHITECTURES

CLIP_S, DAY = 10.0, 8640
WIDTHS = {"visual_features": 8, "audio_features": 4}
FIT_DAYS, CALIBRATION_DAYS, WEEK_DAYS = 2, 5, 7


def correlated(count: int, width: int, memory: float, rng: np.random.Generator) -> np.ndarray:
    from scipy.signal import lfilter

    return lfilter([np.sqrt(1 - memory**2)], [1, -memory], rng.normal(size=(count, width)), axis=0)


def steady(days: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    hour = np.arange(days * DAY) / DAY * 2 * np.pi
    made = {}
    for name, width in WIDTHS.items():
        made[name] = correlated(days * DAY, width, 0.8, rng)
        made[name][:, 0] += np.cos(hour)
    return made


def busy(days: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    count = days * DAY
    mode = np.repeat(rng.integers(5, size=count // 60 + 1), 60)[:count]
    passers = rng.poisson(40 * days)
    made = {}
    for name, width in WIDTHS.items():
        means = np.random.default_rng(width).normal(size=(5, width)) * 2
        made[name] = means[mode] + 0.5 * correlated(count, width, 0.6, rng)
        made[name] += 0.2 * rng.standard_t(5, size=(count, width))
    for start in rng.integers(count - 8, size=passers):
        length = int(rng.integers(1, 8))
        for name, width in WIDTHS.items():
            made[name][start : start + length] += rng.lognormal(0, 0.6) * rng.normal(size=width)
    return made


def inputs_of(vectors: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    tensors = {name: torch.from_numpy(value).float() for name, value in vectors.items()}
    return {
        "visual_features": tensors["visual_features"][None, :, :, None, None],
        "audio_features": tensors["audio_features"][None, :, None],
    }


def fitted(method: str, vectors: dict[str, np.ndarray]):
    one = ARCHITECTURES[method]
    config = one.load("config")(visual_size=8, audio_size=4, feature_grid=(1, 1), most_kept=4096)
    footage = NormalFootage(config)
    for hour in range(len(vectors["visual_features"]) // 360):
        part = slice(360 * hour, 360 * (hour + 1))
        starts = torch.arange(360, dtype=torch.float64) * CLIP_S
        tensors = {name: torch.from_numpy(value[part]).float() for name, value in vectors.items()}
        features = {"visual_features": tensors["visual_features"][:, :, None, None]}
        features["clip_times"] = torch.stack([starts, starts + CLIP_S], 1)
        footage.add({"id": f"hour-{hour:03d}", "has_audio": True}, features, tensors)
    return one.load("fit")(one.load("head"), config, footage).model


def recordings(model, vectors: dict[str, np.ndarray]) -> list[Recording]:
    with torch.no_grad():
        scores = model.scores(model(**inputs_of(vectors)))[0].numpy()
    starts = np.arange(DAY) * CLIP_S
    times = np.stack([starts, starts + CLIP_S], 1)
    return [Recording(f"day-{day}", scores[day * DAY : (day + 1) * DAY], times) for day in range(len(scores) // DAY)]


def main(number: int = 25, *methods: str) -> None:
    """Run and print."""
    for method in methods or ("gaussian", "knn"):
        for generator in (steady, busy):
            begun, kept, alarms, widths = time.monotonic(), 0, [], []
            for run in range(number):
                rng = np.random.default_rng(run)
                model = fitted(method, generator(FIT_DAYS, rng))
                found = alarm_threshold(recordings(model, generator(CALIBRATION_DAYS, rng)), 1.0)
                count = sum(
                    count_events([one], found.threshold) for one in recordings(model, generator(WEEK_DAYS, rng))
                )
                kept += found.week_95[0] <= count <= found.week_95[1]
                alarms.append(count / WEEK_DAYS)
                widths.append(found.week_95)
            low, high = np.median(widths, axis=0)
            print(
                f"{method}, {generator.__name__}: the week's alarms were within the interval in {kept} of {number} "
                f"runs; {np.mean(alarms):.2f} alarms a day on average (promised: 1), median interval {low:.0f} to "
                f"{high:.0f} a week [{time.monotonic() - begun:.0f} s]",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
