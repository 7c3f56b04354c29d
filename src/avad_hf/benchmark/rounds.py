"""Timing in turn: machines are shared and change their pace, so what is compared runs side by side."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Scorer = Callable[[str], list[float]]


@dataclass
class Timing:
    """What one way of scoring took for one file.

    Args:
        seconds: Time that each round took, in seconds.
        scores: Scores of the file's clips in the last round.
    """

    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def timed_in_turn(
    scorers: Mapping[str, Scorer],
    path: str,
    short_path: str,
    rounds: int,
    on_error: Callable[[str, Exception], None],
    on_round: Callable[[dict[str, float]], None] = lambda seconds: None,
) -> dict[str, Timing]:
    """Score one file with each way in turn, A B C A B C, and take the time from file to scores.

    Args:
        scorers: Ways by their names, loaded already.
        path: The file.
        short_path: A short file of the same kind, to warm up with.
        rounds: How often each way comes.
        on_error: Told of a way that fails, which is left out from there on.
        on_round: Told after each round how many seconds each way took.

    Returns:
        Timings by name, of those that did not fail.
    """
    timings: dict[str, Timing] = {name: Timing() for name in scorers}

    def attempt(name: str, file: str, keep: bool) -> None:
        begin = time.perf_counter()
        try:
            scores = scorers[name](file)
        except Exception as error:  # whatever an engine fails with: the others go on
            del timings[name]
            on_error(name, error)
            return
        if keep:
            timings[name].seconds.append(time.perf_counter() - begin)
            timings[name].scores = scores

    for file, keep in [(short_path, False), *([(path, True)] * rounds)]:
        for name in list(timings):
            attempt(name, file, keep)
        if keep:
            on_round({name: timing.seconds[-1] for name, timing in timings.items()})
    return timings


def seconds_to_go(
    round_seconds: Mapping[str, float],
    rounds: int,
    heights: int,
    cameras: int,
    warm_up_share: float,
    other_s: float,
) -> float:
    """Estimate the rest of a benchmark after its first timed round; pictures of all heights count alike.

    Args:
        round_seconds: Seconds that each way took in that round.
        rounds: Rounds of each height.
        heights: Heights that are to be measured, this one included.
        cameras: Videos that run at once later; 0 for none.
        warm_up_share: Length of the file for warming up, in parts of the other's.
        other_s: Seconds of all that does not depend on the rounds.
    """
    passes = rounds - 1 + (heights - 1) * (rounds + warm_up_share)  # from file to scores
    passes += 1  # networks alone
    passes += cameras * (1 + warm_up_share)
    passes += 1  # memory
    return passes * sum(round_seconds.values()) + other_s


def summary(timing: Timing, duration_s: float, beside: Timing | None, reference: Timing | None) -> dict[str, Any]:
    """Figures of one way, ready for JSON.

    Args:
        timing: Timing of this way.
        duration_s: Length of the video, in seconds.
        beside: Timing of the public parts in the same rounds; the ratio of each round counts, not that of the means.
        reference: Timing of torch in float32, whose scores the others are compared with.
    """
    middle = statistics.median(timing.seconds)
    figures = {
        "seconds": timing.seconds,
        "min_seconds": min(timing.seconds),
        "median_seconds": middle,
        "real_time_factor": middle / duration_s,
        "video_seconds_per_second": duration_s / middle,
        "clips_per_second": len(timing.scores) / middle,
        "num_clips": len(timing.scores),
    }
    if beside is not None:
        ratios = [public / ours for public, ours in zip(beside.seconds, timing.seconds, strict=True)]
        figures |= {"times_as_fast_as_public_parts": statistics.median(ratios), "ratio_of_each_round": ratios}
    if reference is not None:
        pairs = zip(timing.scores, reference.scores, strict=True)
        figures["largest_score_difference"] = max(abs(score - exact) for score, exact in pairs)
    return figures


def timed_cameras(pipe: Callable, path: str, short_path: str, cameras: int, duration_s: float) -> dict[str, Any]:
    """Score as many videos at once as there are cameras, in one pipeline.

    Args:
        pipe: The pipeline.
        path: The file that each camera sends.
        short_path: A short file, to warm up with.
        cameras: How many videos run at once.
        duration_s: Length of the file, in seconds.

    Returns:
        ``seconds``, ``real_time_factor`` of each camera, and whether it keeps up: seconds taken by all of them
        together are no more than what was recorded meanwhile.
    """
    pipe([short_path] * cameras, streams=cameras)
    begin = time.perf_counter()
    results = pipe([path] * cameras, streams=cameras)
    seconds = time.perf_counter() - begin
    return {
        "cameras": cameras,
        "seconds": seconds,
        "real_time_factor": seconds / duration_s,
        "keeps_up": seconds <= duration_s,
        "clips_per_second": sum(len(result["clips"]) for result in results) / seconds,
    }


__all__ = ["Scorer", "Timing", "seconds_to_go", "summary", "timed_cameras", "timed_in_turn"]
