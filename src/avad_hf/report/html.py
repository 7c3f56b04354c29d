"""What pages have in common: one HTML file that needs nothing else, for a browser or for paper."""

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from avad_hf.files import shown, write_text

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark; --page: #fff; --text: #1c2430; --soft: #5b6675; --line: #d9dee5; --tint: #f4f6f9;
  --bar: #1f4e79; --good: #e3f1e6; --bad: #fbe4e2; --note: #fff4d6; --note-line: #d99a00; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #14181e; --text: #e3e8ef; --soft: #9aa6b5;
  --line: #323b47; --tint: #1c222b; --bar: #7fb2e5; --good: #1c3a25; --bad: #45211f; --note: #3a2f10; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .4rem; font-size: 1.7rem; line-height: 1.25; }
h2 { margin: 2.6rem 0 .7rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); font-size: 1.25rem; }
h1, p, li, tbody th { overflow-wrap: anywhere; }
p { margin: .5rem 0 1rem; }
small, .soft, caption { color: var(--soft); }
small { font-size: .83em; }
.notes { margin: 1.2rem 0; padding: .8rem 1.1rem; background: var(--note); border-left: .4rem solid var(--note-line); }
.notes ul { margin: .2rem 0 0; padding-left: 1.2rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); gap: 1.5rem; }
.pair > * { min-width: 0; }
.scroll { overflow-x: auto; margin-top: 1rem; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { padding-bottom: .4rem; text-align: left; font-size: .9rem; }
th, td { padding: .38rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: baseline; }
th:first-child, td:first-child, .remarks td:last-child { text-align: left; }
.remarks td:last-child { color: var(--soft); font-size: .88rem; white-space: normal; }
thead th { color: var(--soft); font-size: .85rem; font-weight: 600; vertical-align: bottom; }
tbody th { min-width: 8.5rem; font-weight: 500; } td { white-space: nowrap; }
.reasons { margin: .6rem 0; padding-left: 1.2rem; font-size: .88rem; list-style: "\\2013\\00a0"; }
.right, .wrong { display: block; padding: .2rem .5rem; border-radius: .25rem; background: var(--good); }
.wrong { background: var(--bad); }
.bar { position: relative; display: inline-block; width: 9rem; height: .65rem; background: var(--line); }
.bar i { position: absolute; inset: 0 auto 0 0; background: var(--bar); }
.bar b { position: absolute; inset: 0 auto 0 50%; border-left: 2px solid var(--page); }
figure { margin: 0; } figcaption { margin-top: .4rem; font-size: .88rem; color: var(--soft); }
img { display: block; width: 100%; height: auto; padding: .4rem; background: #fff; border: 1px solid var(--line);
  border-radius: .4rem; }
.video { padding: .8rem; background: var(--tint); border: 1px solid var(--line); border-radius: .5rem; }
.video p { margin: 0 0 .5rem; line-height: 1.35; }
.video .score { float: right; margin-left: .8rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.stretch { display: grid; grid-template-columns: minmax(8rem, 15rem) 1fr; gap: 1rem; margin-bottom: 1rem;
  padding: .8rem; background: var(--tint); border: 1px solid var(--line); border-radius: .5rem; break-inside: avoid; }
.stretch img { padding: 0; background: none; } .stretch p { margin: 0 0 .4rem; line-height: 1.4; }
.senses { display: flex; height: .5rem; margin: .3rem 0 .6rem; background: var(--line); }
.senses i { background: var(--bar); } .senses b { background: var(--note-line); }
.key { display: inline-block; width: .8em; height: .8em; background: var(--bar); }
.key.sound { background: var(--note-line); }
@media (max-width: 40rem) { .stretch { grid-template-columns: 1fr; }
  body { padding: 1.2rem .8rem 3rem; font-size: .93rem; } h1 { font-size: 1.4rem; }
  th, td { padding: .35rem; } td { white-space: normal; } tbody th { min-width: 7rem; } .bar { width: 4rem; } }
@media print { :root { color-scheme: light; font-size: 9.5pt; } body { padding: 0; max-width: none; }
  .pair { grid-template-columns: 1fr 1fr; gap: 1rem; } .scroll { overflow: visible; } .bar { width: 6rem; }
  figure, .video, .notes, .scroll { break-inside: avoid; } h2, p { break-after: avoid; }
  .right, .wrong, .bar, .bar i, .notes, .video, .stretch, .senses, .senses *, .key {
    print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="soft">$summary</p>
$notes
</header>
<main>
$sections
</main>
</body>
</html>
""")


def write_page(
    path: str | os.PathLike, title: str, summary: str, notes: Sequence[str], sections: Sequence[str]
) -> Path:
    """Write a page that appears whole; the folder is created if it does not exist.

    Args:
        path: The file.
        title: Title of the page.
        summary: One line below it, as HTML.
        notes: What the reader must know.
        sections: Parts of the page, as HTML.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {"title": text(title), "summary": summary, "notes": notes_box(notes), "sections": "\n".join(sections)}
    write_text(path, PAGE.substitute(parts))
    return path


def text(words: str) -> str:
    """Words as HTML; what turns the direction of text, or cannot be shown, is shown as escapes."""
    return escape(shown(words))


def section(title: str, content: str) -> str:
    """A part of the page; its content is HTML."""
    return f"<section><h2>{title}</h2>\n{content}\n</section>"


def pair(*contents: str) -> str:
    """Contents beside each other, where there is room."""
    return f'<div class="pair">{"".join(f"<div>{content}</div>" for content in contents)}</div>'


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table; its cells are HTML, and the first of a row names it."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = [
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>' for name, *cells in rows
    ]
    return (
        f'<div class="scroll"><table class="{kind}"><caption>{caption}</caption>\n<thead><tr>{top}</tr></thead>\n'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def count(number: int, noun: str) -> str:
    """A number and what is counted."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def notes_box(notes: Sequence[str]) -> str:
    """What the reader must know, in a box of its own; nothing where there is nothing to say."""
    items = "".join(f"<li>{text(note)}</li>" for note in notes)
    return f'<div class="notes" role="note"><strong>Please note</strong><ul>{items}</ul></div>' if items else ""


__all__ = ["count", "notes_box", "pair", "section", "table", "text", "write_page"]
