"""AVACA's two frozen encoders: a model, a folder, or a repository of the Hub at one commit."""

import os
from pathlib import Path

from huggingface_hub import hf_hub_download
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME

from avad_hf.hub.errors import HubError, hub_errors
from avad_hf.models.engine import EngineModel
from avad_hf.models.slowfast.modeling_slowfast import SlowFastModel
from avad_hf.models.vggish.modeling_vggish import VggishModel

# Where the encoders lie in a checkpoint that carries them, and how processor_config.json says so.
ENCODERS = {"video_encoder": SlowFastModel, "audio_encoder": VggishModel}
# Attribute of an encoder that says which repository of the Hub, at which commit, it came from.
HUB_ID = "hub_id"


def frozen_encoder(role: str, encoder: PreTrainedModel | str | os.PathLike) -> PreTrainedModel:
    """The encoder of a role, or that of a folder or a Hub id, without gradients; ``TypeError`` for anything else."""
    if isinstance(encoder, (str, os.PathLike)):
        is_folder = os.path.isdir(encoder)
        encoder = ENCODERS[role].from_pretrained(encoder) if is_folder else encoder_from_hub(role, os.fspath(encoder))
    kind = ENCODERS[role].config_class
    is_engine = isinstance(encoder, EngineModel) and isinstance(encoder.config, kind)
    if not is_engine and not isinstance(encoder, ENCODERS[role]):
        raise TypeError(
            f"{role} must be a {ENCODERS[role].__name__}, or the folder or Hub id of one, got a "
            f"{type(encoder).__name__}."
        )
    return encoder.requires_grad_(False).eval()


def encoder_from_hub(role: str, place: str, **kwargs) -> PreTrainedModel:
    """Load an encoder from ``user/name`` or ``user/name@revision``, and remember the commit."""
    name, _, revision = place.partition("@")
    try:
        with hub_errors(place, "model", f"loaded as {role}"):
            # The cache keeps a commit's files in a folder of its name.
            config = Path(hf_hub_download(name, CONFIG_NAME, revision=revision or None, **kwargs))
            encoder = ENCODERS[role].from_pretrained(name, revision=config.parent.name, **kwargs)
    except HubError as error:
        raise HubError(f"{error} To use another one: AvacaProcessor.from_pretrained(..., {role}=...).") from error
    setattr(encoder, HUB_ID, f"{name}@{config.parent.name}")
    return encoder


__all__ = ["ENCODERS", "HUB_ID", "encoder_from_hub", "frozen_encoder"]
