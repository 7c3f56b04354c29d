"""Damages of a file's bytes, wherever they lie, and headers that lie themselves."""

import re
import struct
from collections.abc import Callable
from typing import Any

from .jobs import Job, NotPossibleError

# Boxes of an MP4 that hold a duration, and how many bytes after the name it lies (in version 0).
MP4_DURATIONS = {b"mvhd": 16, b"tkhd": 20, b"mdhd": 16}


def overwrite(fill: Callable[[Job, int], bytes], what: str) -> Callable[[Job], dict[str, Any]]:
    def act(job: Job) -> dict[str, Any]:
        data = bytearray(job.path.read_bytes())
        begin, end = job.stretch(data)
        data[begin:end] = fill(job, end - begin)
        job.target.write_bytes(data)
        return {"description": f"{what} from byte {begin} to {end} of {len(data)}"}

    return act


def flip(job: Job) -> dict[str, Any]:
    data = bytearray(job.path.read_bytes())
    count = int(2 ** job.rng.uniform(0, 8))
    places = sorted(job.between(*job.payload(data)) for _ in range(count))
    for place in places:
        data[place] ^= 1 << job.between(0, 8)
    job.target.write_bytes(data)
    return {"description": f"{count} bits flipped, the first in byte {places[0]}"}


def bursts(job: Job) -> dict[str, Any]:
    data = bytearray(job.path.read_bytes())
    count = job.between(3, 20)
    for _ in range(count):
        begin, _ = job.stretch(data)
        piece = job.rng.bytes(job.between(1, 300))
        data[begin : begin + len(piece)] = piece[: len(data) - begin]
    job.target.write_bytes(data)
    return {"description": f"noise in {count} places"}


def header(job: Job) -> dict[str, Any]:
    data = bytearray(job.path.read_bytes())
    low, high = job.payload(data)
    # What lies before the payload as often as what lies after it.
    before = job.rng.random() < 0.5 and low > 8
    begin, end = (0, low) if before or high >= len(data) - 8 else (high, len(data))
    count = int(2 ** job.rng.uniform(0, 5))
    places = sorted(job.between(begin, end) for _ in range(count))
    for place in places:
        data[place] = job.between(0, 256) if job.rng.random() < 0.5 else data[place] ^ (1 << job.between(0, 8))
    job.target.write_bytes(data)
    return {
        "description": f"{count} bytes of headers changed, the first at {places[0]} of {len(data)}",
        "retimed": True,
    }


def cut_end(job: Job) -> dict[str, Any]:
    data = job.path.read_bytes()
    end = job.between(1, len(data))
    job.target.write_bytes(data[:end])
    return {"description": f"cut after {end} of {len(data)} bytes"}


def cut_begin(job: Job) -> dict[str, Any]:
    data = job.path.read_bytes()
    begin = job.between(1, len(data) * 0.6)
    job.target.write_bytes(data[begin:])
    return {"description": f"the first {begin} of {len(data)} bytes cut away", "begins_later": True}


def remove(job: Job) -> dict[str, Any]:
    data = job.path.read_bytes()
    begin, end = job.stretch(data)
    job.target.write_bytes(data[:begin] + data[end:])
    return {"description": f"bytes {begin} to {end} of {len(data)} removed"}


def repeat(job: Job) -> dict[str, Any]:
    data = job.path.read_bytes()
    begin, end = job.stretch(data)
    job.target.write_bytes(data[:end] + data[begin:])
    return {"description": f"bytes {begin} to {end} of {len(data)} are there twice"}


def swap(job: Job) -> dict[str, Any]:
    data = bytearray(job.path.read_bytes())
    first, end = job.stretch(data)
    length = end - first
    low, high = job.payload(data)
    second = job.between(low, high - length)
    one, other = data[first:end], data[second : second + length]
    if abs(first - second) < length:
        raise NotPossibleError("they overlap")
    data[first:end], data[second : second + length] = other, one
    job.target.write_bytes(data)
    return {"description": f"{length} bytes at {first} and {second} swapped"}


def garbage(job: Job) -> dict[str, Any]:
    garbage = job.rng.bytes(job.length()) if job.rng.random() < 0.7 else bytes(job.length())
    job.target.write_bytes(job.path.read_bytes() + garbage)
    return {"description": f"{len(garbage)} bytes of {'noise' if any(garbage) else 'zeros'} appended"}


def grow(job: Job) -> dict[str, Any]:
    data = job.path.read_bytes()
    end = job.between(len(data) * 0.3, len(data) * 0.9)
    rest = job.target.with_suffix(".rest")
    job.target.write_bytes(data[:end])
    rest.write_bytes(data[end:])
    return {
        "description": f"{len(data) - end} bytes are appended to {end} while it is read",
        "request": {"append": str(rest), "append_after": job.between(0, 120)},
    }


def duration(job: Job) -> dict[str, Any]:
    """Let the header claim another duration or number of frames, shorter or longer."""
    data = bytearray(job.path.read_bytes())
    factor = float(job.rng.choice([0.0, 0.25, 0.8, 1.3, 4.0, 1000.0]))
    places: list[tuple[int, str]] = []
    if job.kind in ("mp4", "mov", "m4a"):
        for name, offset in MP4_DURATIONS.items():
            places += [(match.start() + 4 + offset, ">I") for match in re.finditer(name, data)]
    elif job.kind == "avi":
        places += [(data.index(b"avih") + 8 + 16, "<I")]
        places += [(match.start() + 8 + 32, "<I") for match in re.finditer(b"strh", data)]
    elif job.kind in ("mkv", "webm"):
        places += [(match.end(), ">d") for match in re.finditer(b"\x44\x89\x88", data)]
    elif job.kind == "flv":
        places += [(match.end(), ">d") for match in re.finditer(b"duration\x00", data)]
    elif job.kind == "wav":
        places += [(4, "<I"), (data.index(b"data") + 4, "<I")]
    if not places:
        raise NotPossibleError("it says no duration")
    place, form = places[job.between(0, len(places))]
    value = struct.unpack_from(form, data, place)[0]
    new = min(value * factor, 2**32 - 1)
    struct.pack_into(form, data, place, new if form == ">d" else int(new))
    job.target.write_bytes(data)
    return {"description": f"the header's {value:g} at byte {place} became {new:g}"}
