"""Compares what came out of a damaged file with what comes out of the same file in order."""

import re
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from . import marks
from .damage import Damaged
from .originals import Original

# A moment came through if it came within this of its time.
TOLERANCE_S = 0.5
# From so much lost picture, or sound, on the reader must have said something.
LOSS_S = 0.5
# A shift by less than this is none: containers round.
SHIFT_S = 0.05
NAMES = {"picture": r"picture|video|frame", "sound": r"sound|audio"}


@dataclass(frozen=True)
class Moment:
    """A stretch of the original.

    Args:
        what: ``"picture"`` or ``"sound"``.
        time: When it begins, in seconds.
        length: In seconds.
        number: What it shows or sounds.
        columns: In how many stretches of 50 ms it was heard.
    """

    what: str
    time: float
    length: float
    number: int
    columns: int = 1


@dataclass
class Verdict:
    """What became of a case.

    Args:
        outcome: read, refused, exception, crash, hang or memory.
        silent: Lost in silence: which of picture and sound.
        lost: Seconds by ``picture missing``, ``picture spoilt``, ``sound missing`` and ``sound spoilt``.
        unknowable: What of `lost` nobody could notice.
        concealed: Spoilt without an error: what is in the picture is wrong, but decoders flag nothing.
        unverifiable: Lost at an end of which the reader said that it cannot be verified.
        unnamed: Lost, and something was said, but neither of what was lost nor of the file as a whole.
        words: What was said.
    """

    outcome: str
    words: list[str]
    lost: dict[str, float] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    unknowable: list[str] = field(default_factory=list)
    concealed: list[str] = field(default_factory=list)
    unverifiable: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    peak: int = 0
    trace: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether the reader did what it must not."""
        return self.outcome not in ("read", "refused") or bool(self.silent)

    @property
    def line(self) -> str:
        """All of it in one line."""
        lost = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in self.lost.items() if seconds >= 0.05)
        state = f"{self.outcome}{' SILENT: ' + ' and '.join(self.silent) if self.silent else ''}"
        return f"{state}; lost: {lost or 'nothing'}; said: {' | '.join(self.words) or 'nothing'}"


def moments(reference: dict[str, Any]) -> list[Moment]:
    """What there is to be lost in a file, by what was read of it in order."""
    found = []
    frames = [frame for frame in reference["frames"] if frame[2] >= 0]
    ends = [start for start, _, _ in frames[1:]] + [frames[-1][1]]
    for (start, _, number), end in zip(frames, ends, strict=True):
        found.append(Moment("picture", start, end - start, number))
    heard: dict[int, list[float]] = {}
    for index, slot in enumerate(reference["sound"]):
        if slot >= 0:
            heard.setdefault(slot, []).append(reference["sound_start"] + index * marks.HOP_S)
    for slot, times in heard.items():
        found.append(Moment("sound", times[0], marks.SLOT_S, slot, len(times)))
    return found


def judge(original: Original, reference: dict[str, Any], damaged: Damaged, observed: dict[str, Any]) -> Verdict:
    """Say what was lost, and whether the reader said so.

    Args:
        original: What the file is.
        reference: What was observed of it in order.
        damaged: What was done to it.
        observed: What was observed of it then.
    """
    said = [*observed.get("problems", []), *(f"({remark})" for remark in observed.get("remarks", []))]
    words = said if observed["outcome"] == "read" else [observed["words"]]
    verdict = Verdict(observed["outcome"], words, seconds=observed["seconds"], peak=observed["peak"])
    verdict.trace = observed.get("trace", "")
    if observed["outcome"] != "read":
        return verdict
    pictures = [(start, number) for start, _, number in observed["frames"]]
    sounds = [(observed["sound_start"] + i * marks.HOP_S, slot) for i, slot in enumerate(observed["sound"])]
    delivered = {"picture": pictures, "sound": sounds}
    every = moments(reference)
    shift = _shift(every, delivered)
    # Transport streams begin at any time; what begins with the first packets that are left is right.
    if not damaged.begins_later and (original.container != "ts" or shift >= -SHIFT_S):
        shift = 0.0
    states = [(moment, _state(moment, delivered[moment.what], shift)) for moment in every]
    if shift:
        began = min((moment.time for moment, (lost, _) in states if not lost), default=0.0)
        states = [(moment, state) for moment, state in states if moment.time >= began]
    lasts = {
        what: max((m.time for m, (lost, _) in states if m.what == what and not lost), default=-1.0)
        for what in delivered
    }
    for what in delivered:
        losses = [(moment, *state) for moment, state in states if moment.what == what and state[0] > 0]
        for kind in ("missing", "spoilt"):
            verdict.lost[f"{what} {kind}"] = round(sum(lost for _, lost, how in losses if how == kind), 3)
        total = sum(lost for _, lost, _ in losses)
        if total < LOSS_S:
            continue
        inside = sum(lost for moment, lost, _ in losses if moment.time < lasts[what])
        if problems := observed["problems"]:
            if not any(re.search(f"{NAMES[what]}|file", problem) for problem in problems):
                verdict.unnamed.append(what)
        elif damaged.retimed and {moment.number for moment, _, _ in losses} <= {n for _, n in delivered[what]}:
            # Whatever was lost came, at other times.
            verdict.unknowable.append(what)
        elif inside < LOSS_S and any("end" in remark for remark in observed["remarks"]):
            verdict.unverifiable.append(what)
        else:
            verdict.silent.append(what)
    return verdict


def judge_undamaged(original: Original, observed: dict[str, Any]) -> str | None:
    """What is wrong with what was read of a file in order; ``None`` if nothing is.

    Args:
        original: What the file is.
        observed: What was observed of it.
    """
    if observed["outcome"] != "read":
        return f"{observed['outcome']}: {observed['words']}"
    if observed["problems"]:
        return f"false warning: {' | '.join(observed['problems'])}"
    # An edit list cuts off what lies before the start.
    times = [(number, time) for number, time in enumerate(original.times()) if time + original.start >= -1e-6]
    came = [number for _, _, number in observed["frames"]]
    if came != [number for number, _ in times]:
        return f"pictures {came[:3]} to {came[-3:]} came, {len(came)} of {len(times)}"
    slots = {slot for slot in observed["sound"] if slot >= 0}
    due = (original.seconds + original.start - original.sound_start + original.sound_end) / marks.SLOT_S - 2
    if original.sound and len(slots) < due:
        return f"{len(slots)} of {due:.0f} tenths of a second of sound were heard"
    return None


def _shift(every: list[Moment], delivered: dict[str, list[tuple[float, int]]]) -> float:
    """By how much later what came through came, in seconds."""
    for what in ("picture", "sound"):
        times = {moment.number: moment.time for moment in every if moment.what == what}
        if shifts := [time - times[number] for time, number in delivered[what] if number in times]:
            return median(shifts)
    return 0.0


def _state(moment: Moment, delivered: list[tuple[float, int]], shift: float) -> tuple[float, str]:
    """How many seconds of a moment are lost, and how: missing or spoilt."""
    due = moment.time + shift
    near = [number for time, number in delivered if due - TOLERANCE_S <= time <= due + moment.length + TOLERANCE_S]
    count = near.count(moment.number)
    if 2 * count >= moment.columns:
        return 0.0, ""
    # Whether there is anything in its place that is not silence.
    margin = moment.length / 2 if moment.what == "picture" else 0.0
    there = [n for time, n in delivered if due - margin <= time < due + moment.length - marks.COLUMN_S * (not margin)]
    spoilt = any(number != marks.SILENT for number in there) if moment.what == "sound" else bool(there)
    return moment.length * (1 - count / moment.columns), "spoilt" if spoilt else "missing"
