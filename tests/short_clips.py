"""The beginnings of real clips, whose pictures and sound are copied as they are."""

import av


def beginning(source: str, target, frames: int = 34) -> str:
    """Copy the first frames of a file, and the sound until they end.

    Args:
        frames: After which no frame is needed that is stored later: any number of those of `bunny`; 30, 34, 66 or 75
            of `bikes`, for example.
    """
    with av.open(source) as container, av.open(str(target), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in container.streams}
        end = frames / float(container.streams.video[0].average_rate)
        for packet in container.demux():
            if packet.dts is not None and float(packet.pts * packet.time_base) < end - 1e-6:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return str(target)
