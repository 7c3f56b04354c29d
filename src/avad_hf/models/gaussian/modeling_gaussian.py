"""A Gaussian with shrunk covariance."""

import numpy as np
import torch
from torch import Tensor
from transformers import initialization as init

from avad_hf.models.normality.modeling_normality import (
    NormalityForAnomalyDetection,
    NormalityModel,
    Sense,
    fixed,
)

from .configuration_gaussian import GaussianConfig


class GaussianSense(Sense):
    """One sense: the Mahalanobis distance to the mean of normal clips."""

    def __init__(self, config: GaussianConfig, name: str):
        super().__init__(config, name)
        # What makes the covariance the identity: the inverse of its Cholesky factor.
        self.mean, self.whitening = fixed(self.width), fixed(self.width, self.width)

    def reset(self) -> None:
        """Begin with the standard normal distribution."""
        init.zeros_(self.mean)
        init.copy_(self.whitening, torch.eye(self.width))

    def fit(self, vectors: Tensor, certain: Tensor) -> None:
        """Estimate mean and covariance; the covariance is shrunk as Ledoit and Wolf say."""
        from scipy.linalg import solve_triangular
        from sklearn.covariance import ledoit_wolf

        vectors = vectors.double().numpy()
        mean = vectors.mean(0)
        covariance, _ = ledoit_wolf(vectors - mean, assume_centered=True)
        factor = np.linalg.cholesky(covariance)
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(mean))
            self.whitening.copy_(torch.from_numpy(solve_triangular(factor, np.eye(self.width), lower=True)))

    def forward(self, vectors: Tensor) -> Tensor:
        """Mahalanobis distances, `(..., width)` -> `(...)`."""
        return torch.linalg.vector_norm((vectors - self.mean.float()) @ self.whitening.float().T, dim=-1)


class GaussianModel(NormalityModel):
    """Body of the Gaussian: Mahalanobis distances by sight and by sound."""

    config_class = GaussianConfig
    base_model_prefix = "gaussian"
    sense_class = GaussianSense


class GaussianForAnomalyDetection(NormalityForAnomalyDetection):
    """A detector by one Gaussian a sense."""

    config_class = GaussianConfig
    base_model_prefix = "gaussian"
    body_class = GaussianModel


__all__ = ["GaussianForAnomalyDetection", "GaussianModel", "GaussianSense"]
