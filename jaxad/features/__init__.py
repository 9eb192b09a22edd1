"""Frozen features, computed once: a compiled stream through `encode`, and a cache in memory or on disk."""

from jaxad.features.cache import FeatureCache, cache_identity, features_of
from jaxad.features.encoder import Encoder, LiveFeatures, Progress
from jaxad.features.kept import abstract_features
from jaxad.features.last import LastFeatures
from jaxad.features.notes import annotated, extras_of

__all__ = [
    "Encoder",
    "FeatureCache",
    "LastFeatures",
    "LiveFeatures",
    "Progress",
    "abstract_features",
    "annotated",
    "cache_identity",
    "extras_of",
    "features_of",
]
