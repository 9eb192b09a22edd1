"""Wrong lines of what patches of similar normal images are used for, and of prototypes, which few queries draw."""

from __future__ import annotations

from tests.campaigns.mutant_lists.mutant import Mutant

_PART = "Retrieved patches"
_RETRIEVAL, _DPDIFF = ("tests/detectors/test_retrieval.py",), ("tests/detectors/dpdiff/test_detector.py",)
_EXPECTED, _STANDARDIZED = "jaxad/detectors/_expected.py", "jaxad/detectors/_standardized.py"
_PROTOTYPES = "jaxad/memory/prototypes.py"

MUTANTS = (
    Mutant(
        _PART,
        "the sum with the nearest patch's residual in place of the geometric mean",
        _EXPECTED,
        "jnp.sqrt(jnp.maximum(jnp.asarray(residuals), 0.0) * least(denoiser.standardized(known)))",
        "jnp.maximum(jnp.asarray(residuals), 0.0) + least(denoiser.standardized(known))",
        _RETRIEVAL,
    ),
    Mutant(
        _PART,
        "retrieved patches are compared as they are remembered, not rotated back",
        "jaxad/diffusion/retrieval.py",
        "return self.unrotate(jnp.asarray(known.patches, jnp.float32))",
        "return jnp.asarray(known.patches, jnp.float32)",
        _RETRIEVAL,
    ),
    Mutant(
        _PART,
        "the mean over the retrieved patches in place of the nearest one",
        _STANDARDIZED,
        "found.append(1 - cosines(own, those).max(-1))",
        "found.append(1 - cosines(own, those).mean(-1))",
        _RETRIEVAL,
    ),
    Mutant(
        _PART,
        "one nearest patch for both groups of blocks",
        _STANDARDIZED,
        "zip(*(jnp.split(jnp.asarray(a), self._groups, axis=-1) for a in pair), strict=True)",
        "zip(*([jnp.asarray(a)] for a in pair), strict=True)",
        _RETRIEVAL,
    ),
    Mutant(
        _PART,
        "a share of the expected residual is added to the map",
        _EXPECTED,
        "return maps - config.expected_share * expected, scores",
        "return maps + config.expected_share * expected, scores",
        _RETRIEVAL,
    ),
    Mutant(
        _PART,
        "DPDiff-AD leaves the nearest patch out",
        "jaxad/detectors/dpdiff/detector.py",
        "residual = beside_nearest(self.config, residual, least, self.nearby, self._known(features))",
        "beside_nearest(self.config, residual, least, self.nearby, self._known(features))",
        _DPDIFF,
    ),
    Mutant(
        _PART,
        "few queries are scaled by the width of all heads",
        _PROTOTYPES,
        "query.astype(jnp.float32) * (c // heads) ** -0.5",
        "query.astype(jnp.float32) * c**-0.5",
        ("tests/memory/test_prototypes.py",),
    ),
    Mutant(
        _PART,
        "few queries leave the bias of the values out",
        _PROTOTYPES,
        "(value + self.key_value.bias[c:].reshape(1, 1, -1))",
        "(value + 0 * self.key_value.bias[c:].reshape(1, 1, -1))",
        ("tests/memory/test_prototypes.py",),
    ),
)
