"""Images in: safe decoding, folders and prepared data sets, the doctor, the hold-out, batches, the demo set."""

from jaxad.data.batches import LoadedBatch, batches, training_batches
from jaxad.data.class_names import ClassNames
from jaxad.data.dataset import DataSet, load
from jaxad.data.decode import decode_image, decode_mask, pixel_hash, resize, to_rgb
from jaxad.data.demo.dataset import make_demo
from jaxad.data.folder import FolderSource
from jaxad.data.holdout import split_holdout
from jaxad.data.images import ImageList
from jaxad.data.layout import image_files
from jaxad.data.prepared import PreparedSource
from jaxad.data.sampling import TrainingOrder
from jaxad.data.source import ImageSource

__all__ = [
    "ClassNames",
    "DataSet",
    "FolderSource",
    "ImageList",
    "ImageSource",
    "LoadedBatch",
    "PreparedSource",
    "TrainingOrder",
    "batches",
    "decode_image",
    "decode_mask",
    "image_files",
    "load",
    "make_demo",
    "pixel_hash",
    "resize",
    "split_holdout",
    "to_rgb",
    "training_batches",
]
