"""What users say of an anonymiser, in words that a command and a recipe share, and the anonymiser made of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .anonymiser import LOOK_EVERY_S, Anonymiser
from .boxes import Detector
from .hiding import Method
from .masks import read_masks
from .onnx_detectors import FORM, OnnxDetector, OnnxForm
from .published import PUBLISHED, published


@dataclass(frozen=True)
class Choice:
    """What is hidden, and how.

    Args:
        hide: Names of published detectors: ``"faces"``, ``"plates"``.
        detectors: Further ones: a checkpoint of transformers with its classes, ``"PekingU/rtdetr_r50vd=person,car"``,
            or a folder with an ONNX file and ``detector.json`` ([`OnnxForm`]).
        masks: File of fixed masks.
        method: ``"blur"`` (Gaussian), ``"mosaic"`` or ``"solid"``.
        look_every: Seconds from one picture that detectors look at to the next.

    Raises:
        ValueError: For unknown names, or if nothing is to be hidden.
    """

    hide: tuple[str, ...] = tuple(PUBLISHED)
    detectors: tuple[str, ...] = ()
    masks: str | None = None
    method: Method = "blur"
    look_every: float = LOOK_EVERY_S

    def __post_init__(self):
        if unknown := [name for name in self.hide if name not in PUBLISHED]:
            raise ValueError(f"{unknown[0]!r} cannot be hidden by its name. Known are {', '.join(PUBLISHED)}.")
        if not (self.hide or self.detectors or self.masks):
            raise ValueError(f"Nothing is to be hidden. Give {', '.join(PUBLISHED)}, a detector or masks.")

    def anonymiser(
        self,
        on_stage: Callable[[str], None] = lambda stage: None,
        num_threads: int | None = None,
        device: str | None = None,
    ) -> Anonymiser:
        """Make it; raises what `published`, `OnnxDetector`, `ObjectDetector` and `read_masks` raise."""
        found: list[Detector] = [published(name, on_stage, num_threads) for name in self.hide]
        found += [_detector(words, num_threads, device) for words in self.detectors]
        masks = read_masks(self.masks) if self.masks else ()
        return Anonymiser(found, masks=masks, method=self.method, look_every=self.look_every)


def _detector(words: str, num_threads: int | None, device: str | None) -> Detector:
    checkpoint, _, classes = words.partition("=")
    folder = Path(checkpoint)
    if (folder / FORM).is_file():
        networks = sorted(folder.glob("*.onnx"))
        if len(networks) != 1:
            raise ValueError(f"{folder} holds {len(networks)} .onnx files beside {FORM}, and one is needed.")
        return OnnxDetector(networks[0], OnnxForm.read(folder / FORM), num_threads=num_threads)
    from .objects import ObjectDetector

    return ObjectDetector(checkpoint, [name.strip() for name in classes.split(",") if name.strip()], device)


__all__ = ["Choice"]
