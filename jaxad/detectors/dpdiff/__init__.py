"""DPDiff-AD: dual prototype-conditioned diffusion (arXiv 2605.24402)."""

from jaxad.detectors.dpdiff.detector import DPDiff as DPDiff
