"""Draw videos of a street with their sound, in one folder a class: something to try the guides on.

python examples/draw_videos.py videos [number of videos]

Half of the videos are normal, the others show a horse or a bus. Two more, new.mp4 (a horse) and quiet.mp4 (a normal
video), are written beside the folder: no training sees them. 40 videos take about 20 s on two cores. Everything is
drawn and computed: what a detector finds in them says nothing about real streets.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from avad_hf.synthetic import world

NORMAL, ANOMALIES = "normal", ("horse", "bus")
TRAINING_WORLD, NEW_WORLD = 902, 903  # which no other example, test or table uses


def plans(label: str, count: int, seed: int) -> list:
    """Some clips of one class; the world has ten kinds of anomalies, so most clips are left out."""
    return [plan for plan in world.plan_world("crossing", 30 * count + 60, seed) if plan.label == label][:count]


def main(folder: str, num_videos: str = "40") -> None:
    place, half = Path(folder), max(int(num_videos) // 2, 2)
    chosen = plans(NORMAL, half, TRAINING_WORLD)
    for label in ANOMALIES:
        chosen += plans(label, half // len(ANOMALIES), TRAINING_WORLD)
    files = [place / plan.label / f"{plan.stem}.mp4" for plan in chosen]
    for plan, name in ((plans("horse", 1, NEW_WORLD)[0], "new.mp4"), (plans(NORMAL, 1, NEW_WORLD)[0], "quiet.mp4")):
        chosen.append(plan)
        files.append(place.with_name(name))
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(world.render_clip, chosen, files))
    counts = ", ".join(f"{sum(1 for _ in (place / label).iterdir())} {label}" for label in (NORMAL, *ANOMALIES))
    print(f"{place}: {counts}. Beside it: new.mp4 (a horse), quiet.mp4 (normal).")


if __name__ == "__main__":
    main(*sys.argv[1:])
