"""The page and the table of a folder's ranking: what is most unlike the rest, with pictures and words."""

import base64
import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from avad_hf.detection.describe import SENSES as VERBS
from avad_hf.detection.events import FORMULA
from avad_hf.files import shown, write_text

from .html import count, section, text, write_page

# Quality of the small pictures: at 80 one has about 15 kB.
JPEG_QUALITY = 80
# Names of what is seen and heard that are shown of a stretch, if they are so probable; the JSON document has all.
MOST_NAMES, LEAST_SHOWN = 3, 0.01

HOW_TO_READ = (
    "A clip is compared with the most similar clips of all other recordings, by what an encoder sees and by what "
    "another one hears. The clips for which even these are far away come first. No detector was used and nothing was "
    "judged: unlike the rest is not yet wrong, and what happens in many recordings is found in none. Where there are "
    "several cameras, the odd camera comes first: rank the folder of each by itself."
)


def _jpeg(pixels: Tensor) -> bytes:
    """A picture of shape `(3, H, W)`, RGB, 8 bits, as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, format="jpeg", quality=JPEG_QUALITY)
    return buffer.getvalue()


def clock(seconds: float) -> str:
    """A time in a video as people read it: 0:07.2, 12:07.2 or 1:12:07."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    if minutes < 60:
        return f"{minutes}:{tenths // 10:02}.{tenths % 10}"
    return f"{minutes // 60}:{minutes % 60:02}:{tenths // 10:02}"


def rarity(stretch: Mapping[str, Any]) -> str:
    """How rare a stretch is, in words."""
    times = stretch["times_usual"]
    far = "" if times is None else f", {times:.1f} times as far from the nearest others as usual"
    return f"as rare as 1 in {stretch['one_in']:,.0f} clips{far}"


def write_ranking_page(
    document: Mapping[str, Any], pictures: Mapping[int, Tensor], path: str | os.PathLike, title: str
) -> Path:
    """Write a ranking as one HTML file that holds its pictures and refers to nothing outside it.

    Args:
        document: What `FolderRanking.to_dict` gives.
        pictures: The peaks, of shape `(3, H, W)`, RGB, 8 bits, by the rank of their stretch.
        path: The file.
        title: Title of the page.
    """
    facts = (
        count(document["num_videos"], "video"),
        count(document["num_recordings"], "recording"),
        f"{count(document['num_clips'], 'clip')}, {clock(document['seconds'])} in all",
        document["encoders"],
    )
    notes = [*document["notes"], *(f"{one['id']} cannot be read: {one['error']}" for one in document["failed"])]
    parts = [
        section("Most unlike the rest", cards(document["stretches"], pictures)),
        section("How to read this", f"<p>{text(HOW_TO_READ)}</p>"),
    ]
    return write_page(path, title, " &middot; ".join(map(text, facts)), notes, parts)


def cards(stretches: Sequence[Mapping[str, Any]], pictures: Mapping[int, Tensor]) -> str:
    """Stretches with their pictures and words, as HTML."""
    key = (
        '<p class="soft"><span class="key"></span> what is seen &emsp; <span class="key sound"></span> what is heard: '
        "the bar says how much each has to do with the rank.</p>"
    )
    return "\n".join([key, *(_card(stretch, pictures.get(stretch["rank"])) for stretch in stretches)])


def _card(stretch: Mapping[str, Any], picture: Tensor | None) -> str:
    span = f"{clock(stretch['start'])} to {clock(stretch['end'])}"
    image = ""
    if picture is not None:
        data = base64.b64encode(_jpeg(picture)).decode("ascii")
        alt = f"{stretch['video']} at {clock(stretch['peak'])}"
        image = f'<img src="data:image/jpeg;base64,{data}" alt="{text(alt)}">'
    shares = "".join(
        f'<{tag} style="width: {stretch[sense]:.0%}"></{tag}>' for tag, sense in (("i", "sight"), ("b", "sound"))
    )
    lines = [
        f"<strong>{stretch['rank']}. {text(stretch['video'])}</strong>, {span}, peak at {clock(stretch['peak'])}",
        f"<small>{text(rarity(stretch))}; {text(senses(stretch))}</small>",
    ]
    body = "".join(f"<p>{line}</p>" for line in lines) + f'<div class="senses">{shares}</div>'
    body += "".join(f"<p>{text(line)}</p>" for line in words(stretch))
    return f'<article class="stretch"><div>{image}</div><div>{body}</div></article>'


def senses(stretch: Mapping[str, Any]) -> str:
    """How much sight and sound have to do with it, the greater one first."""
    parts = sorted((("sight", stretch["sight"]), ("sound", stretch["sound"])), key=lambda part: -part[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in parts if share >= 0.005)


def words(stretch: Mapping[str, Any]) -> list[str]:
    """What is seen and heard in a stretch, and what is likelier there than in the rest: a line each."""
    lines = []
    for verb in VERBS:
        if names := [one for one in stretch[verb][:MOST_NAMES] if one["score"] >= LEAST_SHOWN]:
            lines.append(f"{verb}: " + "; ".join(f"{one['label']} {one['score']:.0%}" for one in names))
        if likelier := stretch["likelier"].get(verb):
            told = (f"{one['label']} {one['score']:.0%} (usually {shown_share(one['usual'])})" for one in likelier)
            lines.append(f"{verb} more than usual: " + "; ".join(told))
    return lines


def shown_share(share: float) -> str:
    """A small share in figures that do not end in 0%."""
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}" if share >= 0.001 else "under 0.1%"


def write_ranking_csv(stretches: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Write one row a stretch; text that a spreadsheet would compute gets an apostrophe before it."""
    numbers = ("start", "end", "peak", "score", "one_in", "times_usual", "sight", "sound")
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["rank", "video", *numbers, *VERBS, *(f"{verb}_likelier" for verb in VERBS)])
    for stretch in stretches:
        names = [stretch[verb] for verb in VERBS] + [stretch["likelier"].get(verb, []) for verb in VERBS]
        labels = ["; ".join(one["label"] for one in group) for group in names]
        cells = [stretch["rank"], _cell(stretch["video"]), *(stretch[name] for name in numbers)]
        writer.writerow([*cells, *map(_cell, labels)])
    write_text(path, buffer.getvalue())


def _cell(words: str) -> str:
    return f"'{shown(words)}" if words.startswith(FORMULA) else shown(words)


__all__ = ["cards", "clock", "rarity", "senses", "words", "write_ranking_csv", "write_ranking_page"]
