"""Damages of a file's packets: some are missing, and times jump or are missing."""

import struct
from typing import Any

import av

from .jobs import Job, NotPossibleError
from .originals import Keep

JUMP_S, FOREVER_S = 1e5, 1e9
TS_PACKET = 188


def _rewrite(job: Job, keep: Keep) -> None:
    """Write the original again, with the packets for which `keep` is true."""
    try:
        job.original.write(job.target.parent, keep)
    except (av.FFmpegError, ValueError) as error:
        raise NotPossibleError(f"the muxer refuses it: {error}") from error


def _dropped(job: Job, kind: str, low: float, high: float, what: str) -> dict[str, Any]:
    """Leave out what is shown from one second of the file to another."""

    def keep(packet: av.Packet, time: float) -> bool:
        return not (packet.stream.type == kind and low <= time < high)

    _rewrite(job, keep)
    until = "on" if high >= FOREVER_S else f"to {high:.2f} s"
    return {"description": f"{what} from {low:.2f} s {until} dropped"}


def drop_pictures(job: Job) -> dict[str, Any]:
    low = job.rng.uniform(0.3, 2.5)
    return _dropped(job, "video", low, low + job.rng.uniform(0.2, 1.2), "pictures")


def drop_sound(job: Job) -> dict[str, Any]:
    # An Ogg says the time of a page, of a second or so: of the first one nothing tells where sound is missing.
    low = job.original.sound_start + job.rng.uniform(1.5 if job.kind == "ogg" else 0.3, 2.0)
    return _dropped(job, "audio", low, low + job.rng.uniform(0.2, 1.2), "sound")


def sound_ends(job: Job) -> dict[str, Any]:
    return _dropped(job, "audio", job.original.sound_start + job.rng.uniform(0.3, 2.8), FOREVER_S, "sound")


def pictures_end(job: Job) -> dict[str, Any]:
    return _dropped(job, "video", job.rng.uniform(0.3, 3.5), FOREVER_S, "pictures")


def drop_key(job: Job) -> dict[str, Any]:
    met = []

    def keep(packet: av.Packet, time: float) -> bool:
        if packet.stream.type == "video":
            met.append(packet.is_keyframe)
        return packet.stream.type != "video" or len(met) > 1

    _rewrite(job, keep)
    return {"description": "the first key frame dropped", "begins_later": True}


def jump(job: Job) -> dict[str, Any]:
    at, one = job.rng.uniform(0.5, 3.0), bool(job.rng.random() < 0.5)
    kinds = [{"video"}, {"audio"}, {"video", "audio"}][job.between(0, 3)]
    done = set()
    # An MP4 counts 1/90000 s in 31 bits.
    seconds = JUMP_S / 5 if job.kind in ("mp4", "mov", "m4a") else JUMP_S

    def keep(packet: av.Packet, time: float) -> bool:
        kind = packet.stream.type
        if kind in kinds and (not one if kind in done else time >= at):
            done.add(kind)
            ticks = round(seconds / packet.time_base)
            # Muxers refuse times of decoding that fall again.
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + (0 if one else ticks)
        return True

    _rewrite(job, keep)
    packets = "one packet" if one else "all packets"
    return {"description": f"{packets} of {', '.join(sorted(kinds))} from {at:.2f} s on moved by {seconds:g} s"}


def jump_back(job: Job) -> dict[str, Any]:
    """As `jump`, to earlier times too, which no muxer writes: in the bytes of the file."""
    data, one = bytearray(job.path.read_bytes()), bool(job.rng.random() < 0.5)
    begin, seconds = job.between(*job.payload(data)), float(job.rng.choice([-JUMP_S, -30.0, -1.5, 1.5, 30.0, JUMP_S]))
    places = [(place, size) for place, size in _clocks(job, data) if place >= begin]
    if not places:
        raise NotPossibleError("no packet begins after it")
    for place, size in places[:1] if one else places:
        if size == 5:  # 33 bits of a PES header, in ticks of 1/90000 s, between marking bits
            a, b, c = data[place], *struct.unpack_from(">HH", data, place + 1)
            ticks = ((a >> 1 & 7) << 30 | b >> 1 << 15 | c >> 1) + round(seconds * 90000)
            data[place] = a & 0xF1 | (ticks >> 30 & 7) << 1
            struct.pack_into(">HH", data, place + 1, (ticks >> 15 & 0x7FFF) << 1 | 1, (ticks & 0x7FFF) << 1 | 1)
        else:  # milliseconds, the highest byte last
            ticks = int.from_bytes(data[place : place + 3], "big") | data[place + 3] << 24
            ticks = (ticks + round(seconds * 1000)) & 0xFFFFFFFF
            data[place : place + 4] = (ticks & 0xFFFFFF).to_bytes(3, "big") + bytes([ticks >> 24])
    job.target.write_bytes(data)
    packets = "one packet" if one else "all packets"
    return {"description": f"{packets} from byte {begin} of {len(data)} on moved by {seconds:g} s"}


def _clocks(job: Job, data: bytes) -> list[tuple[int, int]]:
    """Where the times of the packets of a transport stream or an FLV lie, and in how many bytes."""
    if job.kind == "ts":
        found = []
        for begin in range(0, len(data), TS_PACKET):
            pes = _pes(data[begin : begin + TS_PACKET])
            if pes is not None and data[begin + pes + 7] & 0x80:
                found.append((begin + pes + 9, 5))
                if data[begin + pes + 7] & 0x40:
                    found.append((begin + pes + 14, 5))
        return found
    found, place = [], 13
    while place + 11 < len(data):
        found.append((place + 4, 4))
        place += 11 + int.from_bytes(data[place + 1 : place + 4], "big") + 4
    return found


def _pes(packet: bytes) -> int | None:
    """Where the header of a PES packet begins in a packet of a transport stream."""
    pes = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
    begins = packet[1] & 0x40 and packet[pes : pes + 3] == b"\x00\x00\x01"
    return pes if begins and packet[pes + 3] >= 0xBD else None


def _ts_packets(job: Job) -> list[bytes]:
    data = job.path.read_bytes()
    return [data[begin : begin + TS_PACKET] for begin in range(0, len(data), TS_PACKET)]


def ts_drop(job: Job) -> dict[str, Any]:
    packets = _ts_packets(job)
    if job.rng.random() < 0.5:
        share = float(2 ** job.rng.uniform(-8, -1))
        kept = [packet for packet in packets if job.rng.random() >= share]
        what = f"each of {len(packets)} packets dropped with a chance of {share:.3f}"
    else:
        count = int(2 ** job.rng.uniform(1, 8))
        begin = job.between(5, len(packets))
        kept = packets[:begin] + packets[begin + count :]
        what = f"{count} packets from packet {begin} of {len(packets)} on dropped"
    job.target.write_bytes(b"".join(kept))
    return {"description": what}


def ts_no_times(job: Job) -> dict[str, Any]:
    """Let the headers of some PES packets say that they hold no times; the bytes of the times are stuffing then."""
    packets, cleared, share = _ts_packets(job), 0, float(job.rng.choice([0.3, 0.9, 1.0]))
    for index, packet in enumerate(packets):
        pes = _pes(packet)
        if pes is not None and job.rng.random() < share:
            packets[index] = packet[: pes + 7] + bytes([packet[pes + 7] & 0x3F]) + packet[pes + 8 :]
            cleared += 1
    job.target.write_bytes(b"".join(packets))
    return {"description": f"{cleared} timestamps taken out"}
