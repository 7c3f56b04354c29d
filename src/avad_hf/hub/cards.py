"""Cards of models, data sets and Spaces: the templates of hub_cards/, filled in.

A template is a card: metadata in YAML that is always true of its kind, then text for Jinja. Parts between
``<!-- name -->`` and ``<!-- /name -->`` are blocks of that name; they alone are written anew when a checkpoint is
pushed, so that what its owner has written around them stays.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import DatasetCardData, ModelCardData, SpaceCardData
from huggingface_hub.repocard_data import CardData

MODELS = ("avaca", "avrl", "encoder", "part")
# Which card a model of each type has.
TEMPLATES = {"avaca": "avaca", "avrl": "avrl", "slowfast": "encoder", "vggish": "encoder", "resnet3d": "encoder"}
DATASETS = ("mavad", "shade", "shanghaitech", "synthetic", "manifest", "feature_store")
SPACES = ("space",)


def template_folder() -> Path:
    """Where the templates lie: inside the package in a wheel, at its top in a checkout."""
    folders = (Path(__file__).parents[1] / "hub_cards", Path(__file__).parents[3] / "hub_cards")
    return next(folder for folder in folders if folder.is_dir())


def _read(template: str) -> tuple[dict[str, Any], str]:
    """Metadata and text of a template."""
    _, front, body = (template_folder() / f"{template}.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


_jinja = jinja2.Environment(
    loader=jinja2.FunctionLoader(lambda name: _read(name)[1]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)


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
    given = {name: value for name, value in (metadata or {}).items() if value is not None}
    try:
        text = _jinja.get_template(template).render(values)
    except jinja2.UndefinedError as error:
        raise ValueError(f"The card {template} has a place without a value: {error}.") from error
    return f"---\n{_card_data(template, fixed | given).to_yaml()}\n---\n{text}"


def space_app(model: str) -> str:
    """The program of a Space that shows a detector, ``user/name`` on the Hub."""
    text = (template_folder() / "space_app.py").read_text(encoding="utf-8")
    return text.replace("{{ model }}", model)


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


def _card_data(template: str, metadata: dict[str, Any]) -> CardData:
    kinds = {ModelCardData: MODELS, DatasetCardData: DATASETS, SpaceCardData: SPACES}
    kind = next(kind for kind, names in kinds.items() if template in names)
    return kind(**metadata)


__all__ = ["DATASETS", "MODELS", "SPACES", "TEMPLATES", "card", "refreshed", "space_app", "template_folder"]
