"""What the settings of configs, processors and feature extractors may be: types, finite numbers, and bounds.

A class says in ``bounds`` between which numbers each of its settings, or each item of one that is a list, must be.
What it says nothing of must be finite, and no larger than any size or count.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Bounds = Mapping[str, tuple[float, float]]

# No width, count or rate of any network or processor comes near, and products of two stay far below what overflows.
LARGEST = 1 << 20
# Stages, dilations, hidden layers, channels: the published networks have five at most.
MOST_ITEMS = 64
# ImageNet's largest set has 21,841; each takes a row of a classifier and two entries of a config.
MOST_CLASSES = 1 << 16
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}


def check_numbers(name: str, value: Any, bounds: Bounds) -> None:
    """Raise ``ValueError`` for a setting, or an item of one, that is not finite or not within its bounds."""
    low, high = bounds.get(name, (-LARGEST, LARGEST))
    is_list = isinstance(value, (list, tuple))
    if is_list and len(value) > MOST_ITEMS:
        raise ValueError(f"{name} has {len(value)} items, and may have {MOST_ITEMS} at most.")
    if is_list and not value and name in bounds:
        raise ValueError(f"{name} needs numbers of {low:.12g} or more, at least one, got [].")
    for number in value if is_list else [value]:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or low <= number <= high:
            continue
        must = f"{low:.12g} or more" if number < low else f"within {low:.12g} and {high:.12g}"
        if isinstance(number, float) and not math.isfinite(number):
            must = f"a finite number {must}"
        what = f"{name} needs numbers of {must}, at least one" if is_list else f"{name} must be {must}"
        raise ValueError(f"{what}, got {_short(list(value) if is_list else value)}.")


def check_arguments(kind: type, arguments: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for arguments of a class that are of another type than it says, or out of its bounds."""
    hints = get_type_hints(kind.__init__)
    for name, value in arguments.items():
        check_type(name, value, hints[name])
        check_numbers(name, value, kind.bounds)


def check_type(name: str, value: Any, hint: Any) -> None:
    """Raise ``ValueError`` for a setting that is not of its annotated type."""
    if not fits(value, hint):
        raise ValueError(f"{name} must be {_described(hint)}, got {_short(value)}.")


def refuse_parts_of_class(kind: type, names: Iterable[str], allowed: Collection[str] = ()) -> None:
    """Raise ``ValueError`` for settings of no meaning that would take the place of a method or the like."""
    for name in names:
        if name not in allowed and (name.startswith("__") or hasattr(kind, name)):
            raise ValueError(f"{kind.__name__} has no setting {name}: that is a part of the class. Remove it.")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of an annotated type: lists stand for tuples, and whole numbers for floats."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(key, inner[0]) and fits(item, inner[1]) for key, item in value.items()
        )
    if origin in (list, tuple, Sequence):
        if not isinstance(value, (list, tuple)):
            return False
        fixed = origin is tuple and Ellipsis not in inner
        return all(fits(item, inner[0]) for item in value) and (not fixed or len(value) == len(inner))
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)


def _described(hint: Any) -> str:
    """An annotated type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Union or origin is UnionType:
        return " or ".join(dict.fromkeys(map(_described, inner)))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is dict:
        return f"names of {_described(inner[1])}s"
    if origin in (list, tuple, Sequence):
        return f"a list of {_described(inner[0]).removeprefix('a ')}s"
    return WORDS.get(hint, f"a {getattr(hint, '__name__', hint)}")


def _short(value: Any) -> str:
    """A value as it is shown in errors, however long it is."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


__all__ = [
    "LARGEST",
    "MOST_CLASSES",
    "Bounds",
    "check_arguments",
    "check_numbers",
    "check_type",
    "refuse_parts_of_class",
]
