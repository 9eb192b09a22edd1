"""CLIPFusion: zero- and few-shot detection from CLIP and Stable Diffusion (arXiv 2506.11772)."""

from jaxad.detectors.clipfusion.detector import CLIPFusion as CLIPFusion
