"""Serves files over RTSP in real time, on 127.0.0.1, by GStreamer. Runs under the system's Python, which has gi.

/usr/bin/python3 tests/rtsp_server.py PORT NAME=FILE ...

The pictures of FILE (MP4 or MOV) are H.264 or H.265, and its sound is AAC or G.711, if it has some. They are sent as
they are. Each client starts at the file's beginning, in its own time. Says "ready" when it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PAYERS = {
    "h264": "h264parse config-interval=1 ! rtph264pay config-interval=1",
    "hevc": "h265parse config-interval=1 ! rtph265pay config-interval=1",
    "aac": "aacparse ! rtpmp4gpay",
    "pcm_mulaw": "audio/x-mulaw ! rtppcmupay",
}


def codecs(path: str) -> list[str]:
    """Names of its codecs, by GStreamer's discoverer, picture first."""
    gi.require_version("GstPbutils", "1.0")
    from gi.repository import GstPbutils

    info = GstPbutils.Discoverer.new(10 * Gst.SECOND).discover_uri("file://" + path)
    streams = info.get_video_streams() + info.get_audio_streams()
    names = {
        "video/x-h264": "h264",
        "video/x-h265": "hevc",
        "audio/mpeg": "aac",
        "audio/x-mulaw": "pcm_mulaw",
    }
    return [names[stream.get_caps().get_structure(0).get_name()] for stream in streams]


def main() -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    for pair in sys.argv[2:]:
        name, path = pair.split("=", 1)
        branches = [
            f"d.{'video' if number == 0 else 'audio'}_0 ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! "
            f"{PAYERS[codec]} name=pay{number} pt={96 + number}"
            for number, codec in enumerate(codecs(path))
        ]
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(f"( filesrc location={path} ! qtdemux name=d {' '.join(branches)} )")
        server.get_mount_points().add_factory("/" + name, factory)
    if not server.attach(None):
        sys.exit(f"port {sys.argv[1]} is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
