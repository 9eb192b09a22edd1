"""What is remembered of normal images: banks of patches, and the prototypes of DPDiff-AD."""
