"""A Gaussian with shrunk covariance."""

import numpy as np
import torch
from torch import Tensor
from transformers import initialization as init

from avad_hf.models.normality.modeling_normality import NormalityForAnomalyDetection, NormalityModel
from avad_hf.models.normality.senses import Sense, fixed

from .configuration_gaussian import GaussianConfig


class GaussianSense(Sense):
    """One sense: the Mahalanobis distance to the mean of normal clips."""

    def __init__(self, config: GaussianConfig, name: str):
        super().__init__(config, name)
        # A matrix that makes the covariance the identity; its transpose times itself is the inverse covariance.
        self.mean, self.whitening = fixed(self.width), fixed(self.width, self.width)

    def reset(self) -> None:
        """Begin with the standard normal distribution."""
        init.zeros_(self.mean)
        init.copy_(self.whitening, torch.eye(self.width))

    def fit(self, vectors: Tensor, certain: Tensor) -> None:
        """Estimate mean and covariance; the covariance is shrunk as Ledoit and Wolf say."""
        from sklearn.covariance import ledoit_wolf_shrinkage

        vectors = vectors.double().numpy()
        mean = vectors.mean(0)
        centred = vectors - mean
        shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
        # Shrunk towards a sphere of the same mean variance.
        least = shrinkage * np.mean(centred**2)
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(mean))
            self.whitening.copy_(torch.from_numpy(_whitening(centred, 1 - shrinkage, least)))

    def forward(self, vectors: Tensor) -> Tensor:
        """Mahalanobis distances, `(..., width)` -> `(...)`."""
        return torch.linalg.vector_norm((vectors - self.mean.float()) @ self.whitening.float().T, dim=-1)


def _whitening(centred: np.ndarray, share: float, least: float) -> np.ndarray:
    """What makes a covariance the identity: `share` of that of centred vectors `(N, width)`, and `least` of variance.

    Of few vectors nearly all directions have the variance `least`: only the N others are computed.
    """
    from scipy.linalg import solve_triangular, svd

    count, width = centred.shape
    if count < width and least > 0:
        _, singular, directions = svd(centred, full_matrices=False, check_finite=False)
        variances = share * singular**2 / count + least
        rest = directions.T * (1 - np.sqrt(least / variances)) @ directions
        return (np.eye(width) - rest) / np.sqrt(least)
    covariance = share * (centred.T @ centred) / count + least * np.eye(width)
    return solve_triangular(np.linalg.cholesky(covariance), np.eye(width), lower=True)


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
