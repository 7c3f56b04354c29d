"""Whether the end of a file is missing, by each container's own bookkeeping: whole, cut at every tenth, longer."""

from pathlib import Path

import pytest
from PIL import Image

from avad_hf.media.decode import MediaError
from avad_hf.media.endings import damage_within, ending
from avad_hf.media.sources import open_media

from .media_files import frame_times, remux, sound, write_media

# File, FFmpeg's name of its container, muxer's options, and whether a missing end shows wherever it was cut.
WHOLE = {
    "a.mp4": ("mov", {}, True),
    "fast.mp4": ("mov", {"movflags": "faststart"}, True),
    "fragmented.mp4": ("mov", {"movflags": "frag_keyframe+empty_moov"}, True),
    "a.mkv": ("matroska", {}, True),
    "live.mkv": ("matroska", {"live": "1"}, False),
    "a.avi": ("avi", {}, True),
    "a.wav": ("wav", {}, True),
    "a.flv": ("flv", {}, True),
    "a.ogg": ("ogg", {}, True),
    "a.gif": ("gif", {}, True),
    "a.ts": ("mpegts", {}, False),
    "a.mpg": ("mpeg", {}, False),
}
CODECS = {
    "a.flv": ("flv", "libmp3lame"),
    "a.ogg": ("libvpx", "libopus"),
    "a.ts": ("libx264", "mp2"),
    "a.mpg": ("libx264", None),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder, made = tmp_path_factory.mktemp("endings"), {}
    for name, (_, options, _) in WHOLE.items():
        picture, heard = CODECS.get(name, ("libx264", "pcm_s16le" if name == "a.wav" else "aac"))
        if name == "a.gif":
            made[name] = folder / name
            pictures = [Image.new("RGB", (64, 48), (5 * number, 0, 0)) for number in range(50)]
            pictures[0].save(made[name], save_all=True, append_images=pictures[1:], duration=40)
        else:
            rate = 48000 if heard == "libopus" else 44100
            times = [] if name == "a.wav" else frame_times(25, 2.0)
            kinds = {"video_codec": picture, "audio_codec": heard or "", "options": options}
            samples = None if name == "a.mpg" else sound(0, 2.0, rate)
            made[name] = Path(write_media(folder / name, times, samples, rate, **kinds))
    return made


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files(files, name):
    container, _, is_known = WHOLE[name]
    found = ending(str(files[name]), container)
    assert found.damage is None
    assert found.known == (is_known and name != "a.flv")
    assert damage_within(str(files[name]), container) is None
    if name != "a.wav":
        with open_media(str(files[name])) as media:
            list(media.frames(32))
            media.sound(16000).read()
            assert media.problems == []
            assert media.remarks == (
                [] if found.known else ["the container does not say where it ends: a missing end would not show"]
            )


@pytest.mark.parametrize("name", [name for name, (_, _, is_known) in WHOLE.items() if is_known])
def test_files_that_were_cut_off(files, tmp_path, name):
    """At every twentieth, and two bytes before the end."""
    data = files[name].read_bytes()
    cut = tmp_path / name
    for twentieth in (*range(4, 20), None):
        cut.write_bytes(data[: -2 if twentieth is None else len(data) * twentieth // 20])
        assert "cut off" in str(ending(str(cut), WHOLE[name][0]).damage), twentieth


def test_transport_streams_end_with_a_packet(files, tmp_path):
    data = files["a.ts"].read_bytes()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(data[: len(data) // 2 // 188 * 188 + 100])
    assert ending(str(cut), "mpegts").damage == "the file is cut off within its last packet"
    cut.write_bytes(data[: len(data) // 2 // 188 * 188])
    found = ending(str(cut), "mpegts")
    assert found.damage is None and not found.known


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.wav", "a.gif"])
def test_more_than_the_header_says(files, tmp_path, name):
    longer = tmp_path / name
    longer.write_bytes(files[name].read_bytes() + b"more than its header says" * 3)
    assert "75 bytes more than its header says" in ending(str(longer), WHOLE[name][0]).damage
    # Recorders reserve a file's length, and fill it up with zeros.
    longer.write_bytes(files[name].read_bytes() + bytes(1000))
    assert ending(str(longer), WHOLE[name][0]).damage is None


@pytest.mark.parametrize("name", ["a.ogg", "a.mkv"])
def test_checksums(files, tmp_path, name):
    """One bit in the middle of a page, or of a cluster."""
    data = bytearray(files[name].read_bytes())
    data[len(data) // 2] ^= 1
    changed = tmp_path / name
    changed.write_bytes(data)
    container = WHOLE[name][0]
    assert "damaged" in str(ending(str(changed), container).damage or damage_within(str(changed), container))
    with open_media(str(changed)) as media:
        list(media.frames(32))
        assert any("damaged" in problem for problem in media.problems)


def test_checksums_of_a_real_clip(bunny, tmp_path):
    path = remux(bunny, tmp_path / "bunny.mkv")
    assert damage_within(path, "matroska,webm") is None


@pytest.mark.parametrize("name", WHOLE)
def test_no_bytes_of_it_make_the_check_itself_fail(files, tmp_path, name):
    """Each of the first 2000 bytes is set to 255 in turn, one in 41 of them: headers lie in all their fields."""
    data = files[name].read_bytes()
    changed = tmp_path / name
    for place in range(0, min(2000, len(data)), 41):
        changed.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
        ending(str(changed), WHOLE[name][0])
        damage_within(str(changed), WHOLE[name][0])


def test_a_growing_file_is_noticed(bunny, tmp_path):
    path = Path(remux(bunny, tmp_path / "growing.ts"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 // 188 * 188])
    with open_media(str(path)) as media:
        frames = media.frames(32)
        next(frames)
        path.write_bytes(whole)
        list(frames)
        assert any("written to while it was read" in problem for problem in media.problems)


def test_a_text_that_names_other_files_is_refused(tmp_path):
    path = tmp_path / "video.mp4"
    path.write_text("#EXTM3U\n#EXTINF:1,\nother.ts\n")
    with pytest.raises(MediaError, match="an HLS playlist, a text that names other files"), open_media(str(path)):
        pass
