"""Small encoders with random weights that name what they see and hear."""

from dataclasses import replace

import torch
from torch import nn

from avad_hf import AvacaProcessor, ResNet3dConfig, ResNet3dModel, VggishConfig, VggishModel
from avad_hf.models.resnet3d.encoder_resnet3d import ResNet3dEncoder
from avad_hf.models.vggish.encoder_vggish import VggishEncoder

SIGHTS = ("riding a bike", "driving car", "=1+1", "juggling fire", "sailing", "ironing", "yoga")
SOUNDS = ("Speech", "Bicycle bell", "Dog\x1b[31m", "Siren", "Silence", "Rain")


class Naming:
    """Makes an encoder name classes: a linear layer on its features, whose mean over cells is taken."""

    class_output = "logits"
    names: tuple[str, ...]

    def __init__(self, network):
        super().__init__(network)
        self.spec = replace(self.spec, classes=self.names)
        self.classifier = nn.Linear(self.spec.width, len(self.names)).requires_grad_(False)
        with torch.no_grad():
            self.classifier.weight.mul_(20)  # so that names differ from clip to clip
        self.calls = 0

    def outputs_of(self, batch, starts=None):
        self.calls += 1
        features = self.read(super().outputs_of(batch, starts))
        is_map = features.dim() > 2
        logits = self.classifier(features.float().flatten(2).mean(-1) if is_map else features.float())
        # A map has steps of time, over which the 3D ResNet's encoder averages.
        return {self.output: features[:, :, None] if is_map else features, "logits": logits}


class NamingEyes(Naming, ResNet3dEncoder):
    names = SIGHTS


class NamingEars(Naming, VggishEncoder):
    names = SOUNDS

    def probabilities(self, outputs):
        """Several may be true."""
        return outputs["logits"].sigmoid()


def eyes(kind=NamingEyes):
    """Reads 16 frames of 32 pixels."""
    torch.manual_seed(1)
    return kind(ResNet3dModel(ResNet3dConfig(stem_width=4, depths=(1, 1, 1, 1))))


def ears(kind=NamingEars):
    torch.manual_seed(2)
    widths = {"hidden_sizes": (8, 8, 8, 8), "intermediate_size": 16, "embedding_size": 16}
    return kind(VggishModel(VggishConfig(**widths)))


def naming_processor(video=NamingEyes, audio=NamingEars, **options) -> AvacaProcessor:
    """With encoders of these kinds, of which the library's own have no classes; in float32 on every machine."""
    return AvacaProcessor(video_encoder=eyes(video), audio_encoder=ears(audio), size=32, **options).to(dtype="float32")
