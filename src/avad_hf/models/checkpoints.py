"""What every checkpoint of this library refuses: another model type, and weights that are not all there."""

import os
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from avad_hf.hub.errors import hub_errors
from avad_hf.hub.push import PushedWithCard


class CheckpointConfig(PushedWithCard, PreTrainedConfig):
    """A config that loads only checkpoints of its own ``model_type``.

    Args:
        notice: What a user must know about these weights (say, that they are untrained). Every result that is made
            with them repeats it. ``None`` for ordinary weights.
    """

    notice: str | None = None

    def describe(self) -> dict[str, str]:
        """What a card says of the architecture, by the names of the card's template."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """All settings; without the folders of this machine that parts were loaded from."""
        settings = super().to_dict()
        for name in self.sub_configs:
            if isinstance(part := settings.get(name), dict):
                part.pop("_name_or_path", None)
        return settings

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """Build the config from its JSON; raises ``ValueError`` for the JSON of another model type."""
        found = config_dict.get("model_type")
        if found is not None and found != cls.model_type:
            raise ValueError(
                f"This checkpoint holds a model of type '{found}', but {cls.__name__} reads only '{cls.model_type}'. "
                f"Give a '{cls.model_type}' checkpoint, or load this one with the classes of '{found}'."
            )
        try:
            return super().from_dict(config_dict, **kwargs)
        except StrictDataclassError as error:  # which is no ValueError
            raise ValueError(f"The config of this '{cls.model_type}' checkpoint is not valid: {error}") from error


def weights_state(model: nn.Module) -> tuple:
    """What changes whenever a model's weights are moved, replaced or written to."""
    tensors = (*model.parameters(), *model.buffers())
    return tuple((tensor.data_ptr(), tensor._version, tensor.dtype, tensor.device) for tensor in tensors)


class CheckpointModel(PushedWithCard, PreTrainedModel):
    """A model that refuses a checkpoint in which some of its weights are missing.

    transformers fills missing weights with random numbers and logs a warning: a detector would then give scores that
    mean nothing.
    """

    # Losses are means over a batch: Trainer has to divide them by the batches that it accumulates.
    accepts_loss_kwargs = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args, **kwargs):
        """Load it; raises ``ValueError`` when weights are missing or damaged, `HubError` without the Hub."""
        wants_info = kwargs.pop("output_loading_info", False)
        try:
            with hub_errors(str(pretrained_model_name_or_path), "model", "loaded"):
                model, info = super().from_pretrained(
                    pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
                )
        except SafetensorError as error:
            raise ValueError(
                f"{pretrained_model_name_or_path}: the weights file is cut or damaged ({error}). Copy or download the "
                "checkpoint again."
            ) from error
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"{pretrained_model_name_or_path}: {len(missing)} weights of {cls.__name__} are missing "
                f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}). Give a complete {cls.__name__} "
                f"checkpoint; to start from new weights, build {cls.__name__}(config) instead."
            )
        return (model, info) if wants_info else model
