"""TFDS builders of the anomaly-detection data sets, free of TensorFlow; each keeps to the contract of SPEC 5.9.

After `import tfds_builders`, `tfds.builder("mvtec_ad/bottle", data_dir=...)` knows them; `jaxad prepare` fills them.
"""

from __future__ import annotations

import importlib
from typing import Any

from tensorflow_datasets.core import registered

from tfds_builders.listing import names


class _Provider:
    """Gives TFDS a data set's class when it is first asked for."""

    def has_dataset(self, name: str) -> bool:
        return name in names()

    def get_builder_cls(self, name: str) -> Any:
        return importlib.import_module(f"{__name__}.{name}.{name}_dataset_builder").Builder


# First in the row, because TFDS's own provider imports all of its data sets before it knows that none is meant.
registered.add_dataset_builder_provider(_Provider(), index=0)
