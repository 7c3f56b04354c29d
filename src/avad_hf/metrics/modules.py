"""The same figures as modules of `evaluate`. They are part of this package: nothing is loaded from the Hub."""

from .anomaly_scores import AnomalyScores
from .event_classes import EventClasses

__all__ = ["AnomalyScores", "EventClasses"]
