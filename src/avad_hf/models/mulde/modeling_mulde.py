"""MULDE: multiscale log-density estimation (Micorek et al., CVPR 2024, arXiv 2403.14497), written from the paper."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from avad_hf.models.normality.modeling_normality import NormalityForAnomalyDetection, NormalityModel
from avad_hf.models.normality.senses import Sense, fixed

from .configuration_mulde import MuldeConfig

# What is added to the mixture's variances, of values that are scaled to 1: fewer clips than levels would give none.
LEAST_VARIANCE = 1e-3


class MuldeSense(Sense):
    """One sense: a network whose gradient is that of the negative log density, and a mixture of its values."""

    def __init__(self, config: MuldeConfig, name: str):
        super().__init__(config, name)
        first, *others = config.hidden_sizes
        self.inlet, self.noise_inlet = nn.Linear(self.width, first), nn.Linear(1, first, bias=False)
        widths = [first, *others]
        self.hidden = nn.ModuleList(nn.Linear(before, after) for before, after in zip(widths, others, strict=False))
        self.outlet = nn.Linear(widths[-1], 1)
        levels, count = config.num_levels, config.num_components
        # Values at all scales, scaled, and the mixture of them.
        self.value_mean, self.value_scale = fixed(levels), fixed(levels)
        self.weights, self.means = fixed(count), fixed(count, levels)
        self.factors = fixed(count, levels, levels)  # Cholesky factors of the inverse covariances
        smallest, largest = map(math.log, config.noise)
        self.register_buffer("levels", torch.linspace(smallest, largest, levels), persistent=False)

    def reset(self) -> None:
        """Begin with random layers, and a mixture of standard normal distributions."""
        for layer in (self.inlet, self.noise_inlet, *self.hidden, self.outlet):
            init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                init.zeros_(layer.bias)
        init.zeros_(self.value_mean)
        init.ones_(self.value_scale)
        init.constant_(self.weights, 1 / len(self.weights))
        init.normal_(self.means)
        init.copy_(self.factors, torch.eye(len(self.levels)).repeat(len(self.weights), 1, 1))
        smallest, largest = map(math.log, self.config.noise)
        init.copy_(self.levels, torch.linspace(smallest, largest, len(self.levels)))

    def values(self, vectors: Tensor, log_noise: Tensor) -> Tensor:
        """The network f (the paper's equation 6): up to a constant the negative log density with noise.

        Args:
            vectors: Clips, of shape `(..., width)`.
            log_noise: Logarithm of the noise's standard deviation, of shape `(..., 1)`.
        """
        return self._rest(_apply(self.inlet, vectors) + _apply(self.noise_inlet, log_noise))

    def _rest(self, hidden: Tensor) -> Tensor:
        hidden = F.gelu(hidden)
        for layer in self.hidden:
            hidden = F.gelu(_apply(layer, hidden))
        return _apply(self.outlet, hidden).squeeze(-1)

    def values_at_levels(self, vectors: Tensor) -> Tensor:
        """Values at all scales, `(..., width)` -> `(..., levels)`."""
        first = _apply(self.inlet, vectors).unsqueeze(-2)
        first = first + _apply(self.noise_inlet, self.levels.float().unsqueeze(1))
        return self._rest(first)

    def fit(self, vectors: Tensor, certain: Tensor) -> None:
        """Train the network by denoising score matching, and fit the mixture to its values of the same clips."""
        config = self.config
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.num_steps)
        generator = torch.Generator().manual_seed(config.seed)
        smallest, largest = map(math.log, config.noise)
        with torch.enable_grad():
            for _ in range(config.num_steps):
                chosen = torch.randint(len(vectors), (min(config.batch_size, len(vectors)),), generator=generator)
                log_noise = smallest + (largest - smallest) * torch.rand(len(chosen), 1, generator=generator)
                drawn = torch.randn(len(chosen), self.width, generator=generator)
                loss = self.loss(vectors[chosen], log_noise, drawn)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        if not all(parameter.isfinite().all() for parameter in trained):
            raise ValueError("the network's weights are no numbers any more. Give a lower learning_rate.")
        self._fit_mixture(vectors)

    def loss(self, vectors: Tensor, log_noise: Tensor, drawn: Tensor) -> Tensor:
        """Denoising score matching with a regulariser (equations 5 and 7).

        The gradient of f where noise was added must be that noise, divided by its variance; weighed by the variance,
        all scales count alike.

        Args:
            vectors: Normal clips, of shape `(B, width)`.
            log_noise: Logarithm of the noise's standard deviation, of shape `(B, 1)`.
            drawn: Standard normal numbers of the shape of `vectors`.
        """
        noise = log_noise.exp()
        noisy = (vectors + noise * drawn).requires_grad_()
        values = self.values(noisy, log_noise)
        (gradient,) = torch.autograd.grad(values.sum(), noisy, create_graph=True)
        matching = (noise * gradient - drawn).square().mean()
        return matching + self.config.regularisation * values.square().mean() / self.width

    def _fit_mixture(self, vectors: Tensor) -> None:
        from sklearn.mixture import GaussianMixture

        with torch.no_grad():
            values = torch.cat([self.values_at_levels(part) for part in vectors.split(1024)])
            self.value_mean.copy_(values.mean(0))
            self.value_scale.copy_(values.std(0).clamp_min(1e-6 * values.abs().mean().clamp_min(1e-6)))
            scaled = ((values - self.value_mean) / self.value_scale).double().numpy()
            mixture = GaussianMixture(len(self.weights), reg_covar=LEAST_VARIANCE, random_state=self.config.seed)
            mixture.fit(scaled)
            self.weights.copy_(torch.from_numpy(mixture.weights_))
            self.means.copy_(torch.from_numpy(mixture.means_))
            self.factors.copy_(torch.from_numpy(mixture.precisions_cholesky_))

    def forward(self, vectors: Tensor) -> Tensor:
        """Negative log likelihoods among normal clips, `(..., width)` -> `(...)`."""
        values = (self.values_at_levels(vectors.float()) - self.value_mean.float()) / self.value_scale.float()
        # (..., components, levels): differences to each mean, made independent.
        apart = torch.einsum("...kl,klm->...km", values.unsqueeze(-2) - self.means.float(), self.factors.float())
        scale = torch.diagonal(self.factors.float(), dim1=1, dim2=2).log().sum(1)
        constant = 0.5 * len(self.levels) * math.log(2 * math.pi)
        log_density = self.weights.float().log() + scale - constant - 0.5 * apart.square().sum(-1)
        return -torch.logsumexp(log_density, dim=-1)


def _apply(layer: nn.Linear, x: Tensor) -> Tensor:
    """A layer in float32, whatever its weights are kept in: densities need it."""
    return F.linear(x, layer.weight.float(), None if layer.bias is None else layer.bias.float())


class MuldeModel(NormalityModel):
    """Body of MULDE: negative log likelihoods of clips among normal ones, by sight and by sound."""

    config_class = MuldeConfig
    base_model_prefix = "mulde"
    sense_class = MuldeSense


class MuldeForAnomalyDetection(NormalityForAnomalyDetection):
    """A detector by MULDE."""

    config_class = MuldeConfig
    base_model_prefix = "mulde"
    body_class = MuldeModel


__all__ = ["MuldeForAnomalyDetection", "MuldeModel", "MuldeSense"]
