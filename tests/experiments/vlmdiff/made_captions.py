"""Captions of made-up parts in the published layout."""

from jaxad.data.captions.writing import write_captions


def captioned(root, parts, split, text, dataset="parts", vlm="internvl"):
    ids = [record.identity for record in getattr(parts, split).records]
    return write_captions(root, dataset, vlm, "pd", split, ids, lambda images: [text] * len(images))
