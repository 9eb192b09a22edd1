"""Wrong lines by part, each with the tests that are to catch it."""

from __future__ import annotations

from tests.campaigns.mutant_lists import clipfusion, dpdiff, metrics, protocols, retrieved_patches, vlmdiff
from tests.campaigns.mutant_lists.mutant import Mutant

__all__ = ["MUTANTS", "Mutant"]

MUTANTS = (
    *dpdiff.MUTANTS,
    *vlmdiff.MUTANTS,
    *clipfusion.MUTANTS,
    *metrics.MUTANTS,
    *protocols.MUTANTS,
    *retrieved_patches.MUTANTS,
)
