"""What a folder of images holds: categories, images, masks, and what is none of these.

    <category>/train/good/*                       normal images for training
    <category>/validation/good/*                  normal images for the threshold alone, optional (MVTec LOCO, AD 2)
    <category>/test/good/*, test/<defect>/*       normal and defective images for testing
    <category>/ground_truth/<defect>/<stem>_mask.* or <stem>.*       masks, optional
    <category>/good/*, <category>/<defect>/*      the same without train/ and test/: good trains, the others test
    *                                             photos alone, in no folder: one category of normal images

A CSV file lists the same one by one (jaxad.data.layout.csv_table), as do exports of FiftyOne (.fiftyone).

Names are words (jaxad.data.layout.words): `good` may be called `normal` or `ok`, `ground_truth` `masks` or `gt`,
`test_good` is test/good, in any case. Masks may also lie in `ground_truth` itself, in a folder among the images, or
beside them. Files are opened only where names leave it open whether pictures are images or masks.

Every entry is classified before anything is counted (jaxad.data.layout.tree). Hidden and system files count for
nothing; thumbnails, other files, links to nothing and folders without a place are named in `Listing.problems`. Linked
files and folders are read, but no folder is entered from within itself.
"""

from jaxad.data.layout.csv_table import read_csv
from jaxad.data.layout.listing import Listing
from jaxad.data.layout.photos import Photos, photos
from jaxad.data.layout.scan import scan
from jaxad.data.layout.words import FOUND, Names, word

__all__ = ["FOUND", "Listing", "Names", "Photos", "photos", "read_csv", "scan", "word"]
