"""Reads files as a user of the library does, and says what came out. Runs in a process of its own, over pipes.

Each line that comes in is a request, and each that goes out what was observed, both in JSON.
"""

import contextlib
import json
import os
import re
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import av
import numpy as np

from . import marks

SHORT_SIDE = 32
# So much sound after the picture's end is read, as `avad_hf.media.windows` does.
SOUND_AFTER_S = 60.0
# Of these seconds all sound is heard, since originals are shorter, whenever the picture ends.
HEARD_S, WINDOW_S = 8.0, 0.5
# Sound is read to its end in one piece up to this length; windows are for what is longer.
WHOLE_S = 600.0


def observe(source: Any, append: str | None = None, append_after: int = 0, size: int = SHORT_SIDE) -> dict[str, Any]:
    """Read a file to its end.

    Args:
        source: What `open_media` takes.
        append: A file that is appended to the video while it is read.
        append_after: After how many pictures, or after the last one if there are fewer.

        size: Short side of the frames, in pixels.

    Returns:
        ``outcome`` (read, refused or exception) and ``words``; of a file that was read ``frames`` (start, end, number
        or -1), ``sound_start``, ``sound`` (see `marks.read_sound`), ``problems``, ``remarks`` and ``duration``.
    """
    from avad_hf.media.decode import MediaError
    from avad_hf.media.sources import open_media

    try:
        with open_media(source) as media:
            frames = []
            for number, frame in enumerate(media.frames(size)):
                frames.append((frame.start, frame.end, marks.read_picture(frame.pixels)))
                if append is not None and number == append_after:
                    _append(source, append)
                    append = None
            if append is not None:
                _append(source, append)
            sound_start, sound = _hear(media.sound(marks.RATE_HZ), frames)
            return {
                "outcome": "read",
                "frames": frames,
                "sound_start": sound_start,
                "sound": sound,
                "problems": list(media.problems),
                "remarks": list(getattr(media, "remarks", [])),
                "duration": media.info.duration,
            }
    except MediaError as error:
        return {"outcome": "refused", "words": str(error)}
    except Exception as error:
        return {"outcome": "exception", "words": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def _hear(track, frames: list[tuple[float, float, int]]) -> tuple[float, list[int]]:
    """When the sound begins, and what it says from then on."""
    if not track.has_sound:
        return 0.0, []
    count = round(HEARD_S / WINDOW_S)
    heard = [track.window(track.start + (index + 1) * WINDOW_S, WINDOW_S) for index in range(count)]
    end = max(end for _, end, _ in frames)
    if end < WHOLE_S:
        track.read(end + SOUND_AFTER_S)
    for start, _, _ in frames:
        if start > max(WHOLE_S, track.start + HEARD_S):
            track.window(start, WINDOW_S)
    return track.start, marks.read_sound(np.concatenate([piece.numpy() for piece in heard]))


def signs(source: Any) -> dict[str, Any]:
    """What FFmpeg itself notices of a file, apart from this library.

    Args:
        source: What `open_media` takes.

    Returns:
        ``packets``: when those of each stream are shown, of all files. ``errors``: what is raised, and frames that
        are flagged, by the kind of stream. ``complaints``: these, and all that is logged. Where two files have the
        same packets, and nothing is complained of, nobody can tell them apart but by looking and listening.
    """
    packets, errors, complaints = [], [], []
    av.logging.set_level(av.logging.WARNING)
    try:
        for path in source.values():
            with av.logging.Capture(local=False) as logged, av.open(path) as container:
                for packet in container.demux():
                    packets.append((path[-3:], packet.stream.type, packet.pts))
                    try:
                        flagged = [frame for frame in packet.decode() if frame.is_corrupt]
                        errors += [f"{packet.stream.type}: a corrupt frame" for _ in flagged]
                    except (av.FFmpegError, IndexError) as error:
                        errors.append(f"{packet.stream.type}: {error}")
            complaints += [message.strip() for _, _, message in logged]
    except Exception as error:
        errors.append(str(error))
    finally:
        av.logging.set_level(None)
    return {"outcome": "read", "packets": packets, "errors": errors, "complaints": complaints + errors}


def _append(source: Any, append: str) -> None:
    path = source["video"] if isinstance(source, dict) else source
    with open(append, "rb") as more, open(path, "ab") as file:
        file.write(more.read())


TASKS = {"observe": observe, "signs": signs}


def _forget_peak() -> None:
    """Let the kernel measure the peak of memory anew, where it can: on Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The most memory of this process, in bytes, since it was forgotten."""
    with contextlib.suppress(OSError):
        return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Answer requests until there are no more."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import avad_hf.media.sources  # noqa: F401

    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        _forget_peak()
        began, cpu = time.monotonic(), time.process_time()
        request = json.loads(line)
        answer = TASKS[request.pop("task")](**request)
        answer |= {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
        answer["peak"] = _peak()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
