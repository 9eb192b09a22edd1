"""TFDS builders of the anomaly-detection data sets, free of TensorFlow; all have the same features.

After `import tfds_builders`, `tfds.builder("mvtec_ad/bottle", data_dir=...)` knows them; `jaxad prepare` fills them.
"""

from __future__ import annotations

from typing import Any

from tensorflow_datasets.core import registered

from tfds_builders.listing import names


class _Provider:
    """Gives TFDS a data set's class when it is first asked for."""

    def has_dataset(self, name: str) -> bool:
        return name in names()

    def get_builder_cls(self, name: str) -> Any:
        # It imports much that listing data sets needs nothing of.
        from tfds_builders.builder import builder_class

        return builder_class(name)


# First in the row, because TFDS's own provider imports all of its data sets before it knows that none is meant.
registered.add_dataset_builder_provider(_Provider(), index=0)
