"""Frozen features, computed once: a compiled stream through `encode`, and a cache in memory or on disk."""

from jaxad.features.cache import FEATURES, FeatureCache, cache_identity, features_of, remove_copy
from jaxad.features.encoder import Encoder, LiveFeatures, Progress
from jaxad.features.kept import abstract_features
from jaxad.features.last import LastFeatures
from jaxad.features.notes import annotated, extras_of

__all__ = [
    "FEATURES",
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
    "remove_copy",
]
