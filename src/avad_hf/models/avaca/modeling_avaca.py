"""AVACA: audio-visual anomaly detection by cross-attention (Leporowski et al., arXiv 2305.15084, section IV).

The paper leaves open or contradicts itself on several points; each choice is noted where it stands.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.checkpoints import CheckpointModel
from avad_hf.models.detector import DetectorModel
from avad_hf.models.forwarding import network_forward
from avad_hf.models.losses import center_loss, dmil_loss

from .classes_avaca import class_loss
from .configuration_avaca import AudioPath, AvacaConfig
from .end_to_end_avaca import AvacaEncoders
from .inputs_avaca import check_features, refuse_nan
from .layers_avaca import AvacaAttentionBlock, AvacaAttentionMap, AvacaConvLayer, through


@dataclass
class AvacaModelOutput(ModelOutput):
    """States of the clips before the score.

    Args:
        clip_states (`torch.Tensor` of shape `(B, T, 2 * hidden_size)`):
            Fused state of each clip, first half from the audio path (AVT), second half from the visual path (VAT);
            zero for padding.
        attentions (`tuple` of two `torch.Tensor`):
            On request: of the transformer in the visual path, shape `(B, T, heads, S, h * w)`, and of the one in the
            audio path, shape `(B, T, heads, h * w, S - 1)` (focused) or `(B, T, heads, h * w, S)` (plain).
        hidden_states (`tuple` of four `torch.Tensor`):
            On request: cells of the picture, of shape `(B, T, h * w, hidden_size)`, and steps of the sound, of shape
            `(B, T, S, hidden_size)`, after stage 1, and both after the transformers. Attention fusion weighs its keys:
            of the focused path it leaves S - 1 steps of the sound.
    """

    clip_states: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, Tensor] | None = None


@dataclass
class AvacaOutput(ModelOutput):
    """Scores of the clips.

    Args:
        loss (`torch.Tensor` of shape `()`):
            With labels: ``dmil_weight * dmil_loss + center_weight * center_loss``, and with class labels
            ``class_weight * class_loss`` more.
        dmil_loss (`torch.Tensor` of shape `()`): With labels, equation (1).
        center_loss (`torch.Tensor` of shape `()`): With labels, equation (2).
        class_loss (`torch.Tensor` of shape `()`): With class labels, their cross-entropy.
        logits (`torch.Tensor` of shape `(B, T)`):
            Clip scores before the sigmoid; the lowest number of their type for padding, so that its score is 0.
        class_logits (`torch.Tensor` of shape `(B, T, num_labels)`):
            For detectors that name classes: scores of the clips' classes before the softmax; zero for padding.
        hidden_states (`tuple` of four `torch.Tensor`): On request, as in [`AvacaModelOutput`].
        attentions (`tuple` of two `torch.Tensor`): On request, as in [`AvacaModelOutput`].
    """

    loss: Tensor | None = None
    dmil_loss: Tensor | None = None
    center_loss: Tensor | None = None
    class_loss: Tensor | None = None
    logits: Tensor | None = None
    class_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, Tensor] | None = None


class AvacaPreTrainedModel(CheckpointModel):
    """Initialisation and loading shared by body and detector."""

    config_class = AvacaConfig
    base_model_prefix = "avaca"
    main_input_name = "visual_features"
    input_modalities = ("video", "audio")
    supports_gradient_checkpointing = True
    unread_inputs = ("clip_times", "has_audio")
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def _init_weights(self, module: nn.Module):
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d)):
            super()._init_weights(module)


class AvacaModel(AvacaPreTrainedModel):
    """Body of AVACA: two stages of convolutions with two crossed transformers between them.

    ```text
    visual features (2304, h, w) --> visual stage 1 (2-D) --> V', h*w tokens
    audio features (S, 128) -------> audio stage 1 (1-D) ---> P', S tokens --> U = P'[1:] - P'[:-1]

    VAT: K = V = V',      Q = P' --> visual stage 2 (1-D) --> mean over tokens --+
    AVT: K = V = U or P', Q = V' --> audio stage 2 (1-D) ---> mean over tokens --+--> clip state
    ```

    As printed in IV-D, VAT has ``K = V = V'`` and ``Q = P'``, AVT has ``K = V = U`` (focused) or ``P'`` (plain) and
    ``Q = V'``, and each output goes on to stage 2 of the path that its transformer is named after: VAT the visual
    path, AVT the audio path. With `fusion_residual` each output is added to its queries, so that what leaves VAT is
    the audio's stream, S steps, informed by what is seen, and what leaves AVT the video's, h * w cells, informed by
    what is heard: ``visual_stage2`` works on sound steps, and ``audio_stage2`` on cells of the picture.

    The other fusions of Chumachenko et al. have the same keys, queries and paths. ``"attention"``: VAT and AVT are
    maps that weigh their keys. Cells of the picture, as the sound asks for them, go through ``visual_stage2``, and U
    or P', as the picture asks for them, through ``audio_stage2``. ``"late"``: both stages come first, each on its own
    sense; U is then the differences of what stage 2 makes of the sound.
    """

    def __init__(self, config: AvacaConfig):
        super().__init__(config)
        width, inner = config.hidden_size, config.intermediate_size
        self.visual_stage1 = nn.Sequential(
            AvacaConvLayer(config, config.visual_size, width, dims=2), AvacaConvLayer(config, width, width, dims=2)
        )
        self.audio_stage1 = nn.Sequential(
            AvacaConvLayer(config, config.audio_size, width, dims=1), AvacaConvLayer(config, width, width, dims=1)
        )
        block = AvacaAttentionMap if config.fusion == "attention" else AvacaAttentionBlock
        self.vat = block(config)
        self.avt = block(config)
        self.visual_stage2 = nn.Sequential(
            AvacaConvLayer(config, width, inner, dims=1), AvacaConvLayer(config, inner, width, dims=1)
        )
        self.audio_stage2 = nn.Sequential(
            AvacaConvLayer(config, width, inner, dims=1), AvacaConvLayer(config, inner, width, dims=1)
        )
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        audio_path: AudioPath | None = None,
    ) -> AvacaModelOutput:
        """Fuse sight and sound of each clip.

        Clips do not see each other. Padding is taken out before the first layer, so that batch norm learns from real
        clips alone and padding never changes a score.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`):
                Feature maps of the video encoder.
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`):
                Embeddings of the second of sound before each frame; zeros where a video has no sound. Not read, and
                not needed, with ``audio_path="zeroed"``.
            clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
            output_attentions: Return the attention weights of both transformers.
            output_hidden_states: Return the states after stage 1 and after the transformers.
            audio_path: Another one than the config's, for this call.

        Returns:
            [`AvacaModelOutput`].

        Raises:
            ValueError: For other shapes, an unknown audio path, missing sound, or values that are not finite.
        """
        config, (batch, num_clips) = self.config, visual_features.shape[:2]
        audio_path = config.audio_path if audio_path is None else audio_path
        check_features(config, visual_features, audio_features, clip_mask, audio_path)
        if audio_path == "zeroed":
            steps = config.num_audio_steps if audio_features is None else audio_features.shape[2]
            audio_features = visual_features.new_zeros(batch, num_clips, steps, config.audio_size)

        # A compiled or exported graph has no shapes that hang on values: there padding is computed, and taken out at
        # the end.
        keeps_padding = clip_mask is None or torch.compiler.is_compiling()
        clip_mask = None if clip_mask is None else clip_mask.bool()
        is_real = None
        if keeps_padding:
            visual, audio = visual_features.flatten(0, 1), audio_features.flatten(0, 1)
            if clip_mask is not None and self.training:
                is_real = clip_mask.flatten()
                visual = visual.masked_fill(~is_real[:, None, None, None], 0.0)
                audio = audio.masked_fill(~is_real[:, None, None], 0.0)
        else:
            if not clip_mask.any():
                raise ValueError("clip_mask is false throughout: no clip is real. Leave such videos out.")
            visual, audio = visual_features[clip_mask], audio_features[clip_mask]
        refuse_nan("visual_features", visual)
        refuse_nan("audio_features", audio)

        def by_video(flat: Tensor) -> Tensor:
            if keeps_padding:
                by_clip = flat.unflatten(0, (batch, num_clips))
                if clip_mask is None:
                    return by_clip
                return by_clip.masked_fill(~clip_mask.view(batch, num_clips, *(1,) * (flat.dim() - 1)), 0.0)
            padded = flat.new_zeros(batch, num_clips, *flat.shape[1:])
            padded[clip_mask] = flat
            return padded

        hidden_states = []

        def recorded(flat: Tensor) -> Tensor:
            """Return a state, also among the outputs if they are asked for: gradients go through these."""
            if not output_hidden_states:
                return flat
            hidden_states.append(by_video(flat))
            return hidden_states[-1].flatten(0, 1) if keeps_padding else hidden_states[-1][clip_mask]

        def in_path(stage: nn.Sequential, steps: Tensor) -> Tensor:
            """What a stage of 1-D convolutions makes of steps of shape `(N, steps, width)`."""
            return through(stage, steps.transpose(1, 2), is_real).transpose(1, 2)

        visual = config.scaled("visual_features", visual.to(self.dtype))
        audio = config.scaled("audio_features", audio.to(self.dtype))
        visual = recorded(through(self.visual_stage1, visual, is_real).flatten(2).transpose(1, 2))
        audio = recorded(in_path(self.audio_stage1, audio))
        if config.fusion == "late":
            visual, audio = in_path(self.visual_stage2, visual), in_path(self.audio_stage2, audio)
        changes = audio if audio_path == "plain" else audio.diff(dim=1)
        vat, vat_attention = self.vat(visual, audio, output_attentions)
        avt, avt_attention = self.avt(changes, visual, output_attentions)
        if config.fusion == "transformer" and config.fusion_residual:
            vat, avt = vat + audio, avt + visual
        # Steps are those of the queries, in attention fusion those of the keys. The picture is recorded first.
        if config.fusion == "attention":
            vat, avt = recorded(vat), recorded(avt)
        else:
            avt, vat = recorded(avt), recorded(vat)
        if config.fusion != "late":
            vat, avt = in_path(self.visual_stage2, vat), in_path(self.audio_stage2, avt)
        return AvacaModelOutput(
            clip_states=by_video(torch.cat([avt.mean(dim=1), vat.mean(dim=1)], dim=1)),
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=(by_video(vat_attention), by_video(avt_attention)) if output_attentions else None,
        )


class AvacaForAnomalyDetection(AvacaPreTrainedModel, DetectorModel):
    """AVACA with its linear score (IV-D, end) and losses (IV-E); the score of a clip is ``sigmoid(logit)``.

    With `video_config` and `audio_config` it holds both encoders (`encoders`) and takes ``pixels`` and ``waveforms``
    in place of features: for fine-tuning them, and for exporting one graph. `with_encoders` makes such a model.
    """

    def __init__(self, config: AvacaConfig):
        super().__init__(config)
        self.avaca = AvacaModel(config)
        # The paper's "binary vector" is read as one score within 0 and 1, which is what equation (1) takes.
        self.classifier = nn.Linear(2 * config.hidden_size, 1)
        self.class_classifier = nn.Linear(2 * config.hidden_size, config.num_labels) if config.names_classes else None
        self.encoders = None
        if config.video_config is not None:
            self.encoders = AvacaEncoders(config.video_config, config.audio_config, config.feature_grid)
        self.post_init()

    def with_encoders(self, processor: Any) -> "AvacaForAnomalyDetection":
        """A copy of this detector that holds copies of its processor's encoders, which then learn with it.

        Batch norms of the encoders learn too in training mode; ``model.encoders.requires_grad_(False)`` freezes the
        weights.

        Args:
            processor: The [`AvacaProcessor`] that makes its features.

        Raises:
            ValueError: For encoders that are no networks of this library, or that a processor normalises otherwise
                than they do by themselves.
        """
        networks = {"video_encoder": processor.video_encoder, "audio_encoder": processor.audio_encoder}
        settings = {"feature_grid": list(processor.feature_grid)}
        for name, network in networks.items():
            settings[f"{name[:5]}_config"] = network.config.to_dict()
        config = type(self.config).from_dict(self.config.to_dict() | settings)
        model = type(self)(config)
        model.load_state_dict(self.state_dict(), strict=False)
        for role, network in networks.items():
            before, within = processor.encoders[role], model.encoders.readers[role]
            for setting in ("image_mean", "image_std", "feature_extractor"):
                if str(getattr(before, setting, None)) != str(getattr(within, setting, None)):
                    raise ValueError(
                        f"The processor's {setting} is not the {role}'s own: a model that holds its encoders has no "
                        "other. Make the features with the encoder's own normalisation first."
                    )
            getattr(model.encoders, role).load_state_dict(network.state_dict())
        return model.to(self.device, self.dtype)

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        audio_path: AudioPath | None = None,
        pixels: Tensor | None = None,
        waveforms: Tensor | None = None,
        has_audio: Tensor | None = None,
        class_labels: Tensor | None = None,
    ) -> AvacaOutput:
        """Score clips and, with labels, compute the loss.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): As for [`AvacaModel`].
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): As for [`AvacaModel`].
            clip_mask (`torch.Tensor` of shape `(B, T)`): As for [`AvacaModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): 1 for anomalous videos, 0 for normal ones.
            output_attentions: Return the attention weights of both transformers.
            output_hidden_states: As for [`AvacaModel`].
            audio_path: As for [`AvacaModel`].
            pixels (`torch.Tensor` of shape `(B, T, frames, 3, H, W)`):
                From 0 to 255, in place of features, where the model holds its encoders.
            waveforms (`torch.Tensor` of shape `(B, T, frames, samples)`):
                With `pixels`: the sound before each frame, within -1 and 1; of encoders that give tokens one window a
                clip. Without it the sound's features are zero.
            has_audio (`torch.Tensor` of shape `(B,)`):
                With `waveforms`: false for videos without sound, whose features are then zero.
            class_labels (`torch.Tensor` of shape `(B,)`, *optional*):
                With `labels`, of a detector that names classes: numbers of the videos' classes.

        Returns:
            [`AvacaOutput`].

        Raises:
            ValueError: For other shapes, missing sound, values that are not finite, other labels than 0 and 1, or
                numbers of no class.
        """
        if pixels is not None:
            if self.encoders is None or visual_features is not None:
                raise ValueError(
                    "pixels take the place of features, in a model that holds its encoders. Give features alone, or "
                    "make such a model by with_encoders(processor)."
                )
            visual_features, audio_features = self.encoders(pixels, waveforms, has_audio, clip_mask)
        elif visual_features is None:
            raise ValueError(
                "AVACA needs visual_features, or pixels where it holds its encoders. AvacaProcessor makes both."
            )
        outputs = self.avaca(
            visual_features,
            audio_features,
            clip_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            audio_path=audio_path,
            return_dict=True,
        )
        logits = self.classifier(outputs.clip_states).squeeze(-1)
        class_logits = None if self.class_classifier is None else self.class_classifier(outputs.clip_states)
        scored = AvacaOutput(logits=logits, class_logits=class_logits)
        losses = {} if labels is None else self.losses(scored, labels, clip_mask, class_labels)
        if clip_mask is not None:
            is_padding = ~clip_mask.bool()
            logits = logits.masked_fill(is_padding, torch.finfo(logits.dtype).min)
            class_logits = None if class_logits is None else class_logits.masked_fill(is_padding.unsqueeze(-1), 0.0)
        return AvacaOutput(
            logits=logits,
            class_logits=class_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **losses,
        )

    def probabilities(self, outputs: AvacaOutput) -> Tensor | None:
        """Probabilities of the classes of each clip, of shape `(B, T, num_labels)`, float64 on the CPU, if it has any.

        The class of a video is called by its highest clips: by the mean of their logits.
        """
        class_logits = getattr(outputs, "class_logits", None)
        return None if class_logits is None else class_logits.detach().cpu().double().softmax(dim=-1)

    def begin_with(self, source: PreTrainedModel) -> None:
        """Take the weights of a trained detector; those of its classes only if they are the same."""
        weights = source.state_dict()
        if source.config.id2label != self.config.id2label:
            new = self.state_dict()
            weights = {name: value for name, value in weights.items() if name in new} | {
                name: value for name, value in new.items() if name.startswith("class_classifier.")
            }
        self.load_state_dict(weights)

    def losses(
        self,
        outputs: AvacaOutput | Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        class_labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of clip scores (IV-E), also of scores that were computed in several batches.

        Args:
            outputs: What `forward` gives; or its logits alone, of shape `(B, T)`.
            labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
            mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
            class_labels (`torch.Tensor` of shape `(B,)`): Numbers of the videos' classes, if the detector names some.

        Returns:
            ``loss``, ``dmil_loss`` and ``center_loss``; with class labels also ``class_loss``.

        Raises:
            ValueError: For other labels than 0 and 1, numbers of no class, or classes where the detector names none.
        """
        if not torch.compiler.is_compiling() and not ((labels == 0) | (labels == 1)).all():
            raise ValueError(f"labels must be 0 (normal) or 1 (anomalous), got {labels.unique().tolist()}.")
        logits = getattr(outputs, "logits", outputs)
        dmil = dmil_loss(logits.float(), labels, mask, alpha=self.config.dmil_alpha)
        center = center_loss(logits.float(), labels, mask)
        total = self.config.dmil_weight * dmil + self.config.center_weight * center
        if class_labels is None:
            return {"loss": total, "dmil_loss": dmil, "center_loss": center}
        if (class_logits := getattr(outputs, "class_logits", None)) is None:
            raise ValueError(
                "class_labels are for a detector that names classes, and this one has no classes: num_labels is 2. "
                "Give a config with more, or leave class_labels out."
            )
        named = class_loss(class_logits.float(), class_labels, logits, mask, self.config.dmil_alpha)
        total = total + self.config.class_weight * named
        return {"loss": total, "dmil_loss": dmil, "center_loss": center, "class_loss": named}


__all__ = ["AvacaForAnomalyDetection", "AvacaModel", "AvacaPreTrainedModel"]
