"""Cards of models, data sets and Spaces: the templates of hub_cards/, filled in.

A template is a card: metadata in YAML that is always true of its kind, then text for Jinja. Parts between
``<!-- name -->`` and ``<!-- /name -->`` are blocks of that name; they alone are written anew when a checkpoint is
pushed, so that what its owner has written around them stays.
"""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import DatasetCardData, ModelCardData, SpaceCardData
from huggingface_hub.repocard_data import CardData
from transformers import MODEL_MAPPING


def template_folder() -> Path:
    """Where the templates lie: inside the package in a wheel, at its top in a checkout."""
    folders = (Path(__file__).parents[1] / "hub_cards", Path(__file__).parents[3] / "hub_cards")
    return next(folder for folder in folders if folder.is_dir())


def _read(template: str) -> tuple[dict[str, Any], str]:
    """Metadata and text of a template; raises ``ValueError`` for what is no name of one: templates are programs."""
    if not re.fullmatch("[a-z_]+", template):
        raise ValueError(f"{template!r} is no template of cards.")
    _, front, body = (template_folder() / f"{template}.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def plain(text: Any) -> str:
    """Words of a user's own, such as labels and notices, as Markdown that shows them as they are, on one line."""
    line = " ".join(str(text).split())
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line).replace("<", "&lt;").replace(">", "&gt;")
    # Marks inside words, such as those of car_accident, mean nothing; at the beginning others do.
    line = re.sub(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", line)
    line = re.sub(r"^(\d+)(?=[.)])", r"\1\\", line)
    return f"\\{line}" if line.startswith(("-", "+", "#", "=")) else line


def code(text: Any) -> str:
    """Words of a user's own in the type of code, on one line."""
    line = " ".join(str(text).split()).replace("|", "\\|")
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{ticks} {line} {ticks}" if len(ticks) > 1 else f"`{line}`"


def literal(text: str) -> str:
    """Text as Python writes it, on one line, between double quotes; it cannot hold the mark of a block."""
    return json.dumps(str(text), ensure_ascii=False).replace("<", "\\u003c")


_jinja = jinja2.Environment(
    loader=jinja2.FunctionLoader(lambda name: _read(name)[1]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)


_jinja.filters |= {"plain": plain, "code": code, "literal": literal, "shell": lambda text: shlex.quote(str(text))}


def card(template: str, metadata: dict[str, Any] | None = None, **values: Any) -> str:
    """Fill in a template of hub_cards/.

    Args:
        template: Its name without ``.md``.
        metadata: Added to the template's own, as `huggingface_hub`'s `ModelCardData`, `DatasetCardData` or
            `SpaceCardData` takes it; ``None`` stands for nothing.
        values: What the template names.

    Raises:
        ValueError: If the template needs a value that is not given, or the metadata are not valid.
    """
    fixed, _ = _read(template)
    added = {name: value for name, value in (metadata or {}).items() if value is not None}
    try:
        text = _jinja.get_template(template).render(values)
    except jinja2.UndefinedError as error:
        raise ValueError(f"The card {template} has a place without a value: {error}.") from error
    return f"---\n{_kind_of(fixed)(**fixed | added).to_yaml()}\n---\n{text}"


def card_values(config: Any) -> dict[str, Any]:
    """What the templates of models are told of a config.

    Args:
        config: A ``CheckpointConfig``, of a detector or an encoder.

    Returns:
        What its `describe` gives; ``reads``, ``"features"`` or ``"videos"`` of a detector and ``"pixels"`` or
        ``"waveform"`` of an encoder; and ``module``, what must be imported besides this library, or ``None``.
    """
    module = type(config).__module__
    values = {"module": None if module.startswith("avad_hf.") else module}
    if hasattr(type(config), "detector_spec"):
        spec = config.detector_spec
        values |= {"reads": spec.reads, "objective": spec.objective, "inputs": dict(spec.inputs)}
    else:
        network = MODEL_MAPPING.get(type(config), None)
        main_input = getattr(network, "main_input_name", "pixel_values_videos")
        values["reads"] = "pixels" if main_input.startswith("pixel") else "waveform"
    return values | config.describe()


def space_app(model: str) -> str:
    """The program of a Space that shows a detector, ``user/name`` on the Hub."""
    text = (template_folder() / "space_app.py").read_text(encoding="utf-8")
    return text.replace('"{{ model }}"', literal(model))


def metric_app(name: str) -> str:
    """The program of a Space that shows a metric, whose code is ``name.py`` beside it."""
    text = (template_folder() / "metric_app.py").read_text(encoding="utf-8")
    return text.replace('"{{ code }}"', literal(f"{name}.py"))


def refreshed(text: str, template: str, only: Sequence[str] | None = None, **values: Any) -> str:
    """Write the blocks of a card anew; everything else of it stays.

    Args:
        text: A card, or its text, made from the template and edited since then. Blocks that it lacks stay away.
        template: Its name without ``.md``.
        only: Names of the blocks; all by default.
        values: What the blocks name.
    """
    filled = _jinja.get_template(template)
    for name, block in filled.blocks.items():
        if only is not None and name not in only:
            continue
        inside = "".join(block(filled.new_context(values)))
        marked = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text = re.sub(marked, lambda match, new=inside: match[1] + new + match[2], text, flags=re.DOTALL)
    return text


def _kind_of(fixed: dict[str, Any]) -> type[CardData]:
    """The metadata class of a template: a model's names its library, and a Space's the kit that it is made with."""
    if "library_name" in fixed:
        return ModelCardData
    return SpaceCardData if "sdk" in fixed else DatasetCardData


__all__ = [
    "card",
    "card_values",
    "code",
    "literal",
    "metric_app",
    "plain",
    "refreshed",
    "space_app",
    "template_folder",
]
