"""Detectors of transformers: any checkpoint for object detection, and the classes of it that are hidden."""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np

from .boxes import Boxes, Margin

# Recall counts: a score at which an evaluation would not yet call it a person, say.
THRESHOLD, SURE = 0.2, 0.4
MARGIN: Margin = (0.1, 0.1, 0.1, 0.1)


class ObjectDetector:
    """Finds objects of some classes by a checkpoint of transformers (DETR, RT-DETR, YOLOS and others).

    Args:
        checkpoint: Folder or Hub id.
        classes: Names of classes as the checkpoint has them: ``["person", "car"]``.
        device: Where it computes; by default on the CPU.

    Raises:
        ValueError: For a checkpoint of another kind, or classes that it does not know.
        OSError: If there is no such checkpoint.
    """

    margin, sure = MARGIN, SURE

    def __init__(self, checkpoint: str, classes: Sequence[str], device: str | None = None):
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        self._processor = AutoImageProcessor.from_pretrained(checkpoint, trust_remote_code=False)
        self._model = AutoModelForObjectDetection.from_pretrained(checkpoint, trust_remote_code=False)
        self._model = self._model.eval().to(device or "cpu")
        names = {name.lower(): number for number, name in self._model.config.id2label.items()}
        for name in classes:
            if name.lower() not in names:
                near = get_close_matches(name.lower(), names, n=1)
                meant = f" Did you mean {near[0]}?" if near else ""
                known = ", ".join(sorted(names)[:20]) + (", ..." if len(names) > 20 else "")
                raise ValueError(f"{checkpoint} knows no class {name!r}.{meant} It knows {known}.")
        if not classes:
            raise ValueError(f"Say what {checkpoint} shall hide, such as {checkpoint}={','.join(sorted(names)[:2])}.")
        self._wanted = [names[name.lower()] for name in classes]
        self.kind, self.origin = ", ".join(classes), f"{checkpoint} ({self._model.config.model_type})"
        commit = getattr(self._model.config, "_commit_hash", None)  # of a folder there is none
        self.identity = f"{checkpoint} {commit} {self.kind} {THRESHOLD}"

    def __call__(self, picture: np.ndarray) -> Boxes:
        """What it finds in a picture of shape `(H, W, 3)`, uint8 RGB."""
        import torch

        inputs = self._processor(images=picture, return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            outputs = self._model(**inputs)
        (found,) = self._processor.post_process_object_detection(
            outputs, threshold=THRESHOLD, target_sizes=[picture.shape[:2]]
        )
        keep = np.isin(found["labels"].cpu().numpy(), self._wanted)
        return Boxes(
            found["boxes"].float().cpu().numpy()[keep].reshape(-1, 4), found["scores"].float().cpu().numpy()[keep]
        )


__all__ = ["ObjectDetector"]
