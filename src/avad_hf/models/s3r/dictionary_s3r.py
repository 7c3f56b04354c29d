"""The dictionary of normal videos that S3R looks normal footage up in."""

import math
import warnings

import torch
from torch import Tensor

# Time grows with the square of the number of videos, and more; UCF-Crime, the larger of the published ones, has 800.
MOST_VIDEOS = 1000
# As published: sparse codes of two atoms, and a hundred batches of 32.
NUM_NONZERO = 2
BATCH_SIZE = 32
NUM_BATCHES = 100
# Seed of the order of its batches. It is no setting: a run that is resumed must find the same dictionary.
SEED = 0


def num_atoms_of(num_videos: int, share: float) -> int:
    """How many atoms a dictionary of so many videos has."""
    return max(1, round(share * num_videos))


def learn_dictionary(means: Tensor, num_atoms: int) -> Tensor:
    """Atoms of which two approximate what normal videos have in any one channel.

    As published, what is learnt are channels as mixtures of videos: a channel's values in all videos are one sample,
    and the codes of all channels are the atoms.

    Args:
        means: Mean features of normal videos, of shape `(videos, channels)`.
        num_atoms: How many; at most as many as videos.

    Returns:
        `torch.Tensor` of shape `(num_atoms, channels)`.
    """
    from sklearn.decomposition import MiniBatchDictionaryLearning
    from sklearn.exceptions import ConvergenceWarning

    samples = means.T.double().numpy()
    batch_size = min(BATCH_SIZE, len(samples))
    learner = MiniBatchDictionaryLearning(
        n_components=num_atoms,
        batch_size=batch_size,
        max_iter=math.ceil(NUM_BATCHES / math.ceil(len(samples) / batch_size)),  # passes over all channels
        # It never stops before: the published code's version of scikit-learn did not.
        tol=0.0,
        max_no_improvement=None,
        transform_algorithm="omp",
        transform_n_nonzero_coefs=min(NUM_NONZERO, num_atoms),
        random_state=SEED,
    )
    with warnings.catch_warnings():
        # Said of videos that are alike, or of few channels: fewer than two atoms then do as well.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Orthogonal matching pursuit ended", RuntimeWarning)
        codes = learner.fit_transform(samples)
    return torch.from_numpy(codes.T.copy()).float()


__all__ = ["MOST_VIDEOS", "learn_dictionary", "num_atoms_of"]
