"""Images in: folders and prepared data sets, loaded by name, examined and split.

    load("folder:/my/parts") -> DataSet       its parts are sources: FolderSource, or PreparedSource
    ImageList([...])                          loose images
    ClassNames([...])                         categories without images

Names are imported when they are first used. Batches are in `jaxad.data.batches`, decoding in `jaxad.data.decode`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
