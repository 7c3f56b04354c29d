"""A detector of a user's own: it keeps the contract, and nothing of the library knows it."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForVideoClassification, AutoProcessor

from avad_hf import AvacaProcessor, DetectorConfig, DetectorModel, DetectorSpec
from avad_hf.models.detector import WHOLE_VIDEO


class OwnConfig(DetectorConfig):
    """Width of what it sees, and how many neighbours it looks at; -1 for the whole video."""

    model_type = "tests_own"
    summary: ClassVar[str] = "An Own detector."
    visual_size: int = 6
    neighbours: int = 0

    @property
    def detector_spec(self) -> DetectorSpec:
        context = WHOLE_VIDEO if self.neighbours < 0 else self.neighbours
        return DetectorSpec("Own", context=context, inputs={"visual_features": self.visual_size})


class OwnDetector(DetectorModel):
    """Linear scores, averaged over the neighbours of each clip."""

    config_class = OwnConfig
    base_model_prefix = "own"
    main_input_name = "visual_features"

    def __init__(self, config: OwnConfig):
        super().__init__(config)
        self.score = nn.Linear(config.visual_size, 1)
        self.post_init()

    def forward(
        self, visual_features: Tensor, clip_mask: Tensor | None = None, labels: Tensor | None = None, **kwargs
    ):
        from transformers.modeling_outputs import ImageClassifierOutput

        mask = torch.ones(visual_features.shape[:2], device=visual_features.device)
        mask = mask if clip_mask is None else clip_mask.float()
        logits = self.score(visual_features.mean(dim=(-2, -1))).squeeze(-1)
        width = self.config.neighbours
        if width < 0:
            logits = logits + (logits * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        elif width > 0:
            kernel = torch.ones(1, 1, 2 * width + 1, device=logits.device)
            total, count = (F.conv1d(x[:, None], kernel, padding=width)[:, 0] for x in (logits * mask, mask))
            logits = total / count.clamp(min=1)
        loss = None if labels is None else self.losses(logits, labels, clip_mask)["loss"]
        return ImageClassifierOutput(loss=loss, logits=logits)

    def losses(self, outputs, labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        logits = getattr(outputs, "logits", outputs)
        logits = logits if mask is None else logits.masked_fill(~mask.bool(), -30.0)
        return {"loss": F.binary_cross_entropy_with_logits(logits.amax(dim=1), labels.float())}

    def explain(self, outputs) -> dict[str, Tensor]:
        return {"logit": outputs.logits}


AutoConfig.register("tests_own", OwnConfig)
AutoModelForVideoClassification.register(OwnConfig, OwnDetector)
AutoProcessor.register(OwnConfig, AvacaProcessor)
