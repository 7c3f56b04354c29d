"""Are promised alarms a day kept? Simulated cameras whose rates are known, calibrated and then watched for a week.

python tests/benchmarks/bench_alarms.py [number of simulations, 200] [seed, 0]

A line for each kind of footage: how often the 95% interval of the rate held the true one, how often that of the
threshold held the true threshold, how often the next week's number of alarms was in its interval, the middle and the
5% and 95% quantiles of the true rate over the promised one, the median interval, and how often normal events were
called suspicious.
"""

import sys
import time
from pathlib import Path

import numpy as np

from avad_hf.metrics.alarms import alarm_threshold
from avad_hf.metrics.event_streams import count_events

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.score_streams import KINDS, TAILS, Camera, rate_at

# Days of footage, and alarms a day.
FOOTAGE = ((3, 1.0), (7, 1.0), (14, 1.0), (1, 5.0))


def simulate(camera: Camera, days: float, rate: float, number: int, seed: int) -> np.ndarray:
    """One row a simulation: what the line says, before it is summed up."""
    streams = [seed, KINDS.index(camera.kind), TAILS.index(camera.tail), int(days)]
    rng, right, rows = np.random.default_rng(streams), camera.threshold(rate), []
    for _ in range(number):
        found = alarm_threshold(camera.record(days, rng), rate)
        true = rate_at(camera, found.threshold)
        alarms = count_events(camera.record(7, rng), found.threshold)
        (low, high), (lowest, highest) = found.interval_95, found.threshold_interval_95
        is_kept = found.week_95[0] <= alarms <= found.week_95[1]
        rows.append(
            (low <= true <= high, lowest <= right <= highest, is_kept, true / rate, low, high, bool(found.suspects))
        )
    return np.array(rows, dtype=float)


def main(number: int = 200, seed: int = 0) -> None:
    print(f"{number} simulations each, seed {seed}\n")
    print("footage      tail   days  rate | rate  thresh  week | true / promised     interval      suspects")
    for kind in KINDS:
        for tail in TAILS:
            for days, rate in FOOTAGE:
                began = time.perf_counter()
                rows = simulate(Camera(kind, tail), days, rate, number, seed)
                held = " ".join(f"{share:6.1%}" for share in rows[:, :3].mean(axis=0))
                low, middle, high = np.percentile(rows[:, 3], (5, 50, 95))
                interval = np.median(rows[:, 4:6], axis=0)
                print(
                    f"{kind:12} {tail:5} {days:4g} {rate:5g} | {held} | {middle:.2f} ({low:.2f} to {high:.2f}) | "
                    f"{interval[0]:.2f} to {interval[1]:.2f} | {rows[:, 6].mean():.1%}  "
                    f"[{time.perf_counter() - began:.0f} s]",
                    flush=True,
                )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
