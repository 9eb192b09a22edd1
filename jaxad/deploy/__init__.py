"""Detectors outside of jaxad: programs in StableHLO and ONNX that need no jaxad to run, and bundles."""
