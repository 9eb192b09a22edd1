"""VLMDiff and DiAD: latent diffusion guided by the image itself and by captions (arXiv 2511.08173, 2312.06607)."""

from jaxad.detectors.vlmdiff.detector import VLMDiff as VLMDiff
