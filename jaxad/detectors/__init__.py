"""The detectors; a file or package here is found by its name, and registers its class when it is imported."""
