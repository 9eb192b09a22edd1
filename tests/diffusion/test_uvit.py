"""The skips of the U-ViT; what it shares with the other denoisers is in detectors/dpdiff/test_denoiser.py."""

import pytest
from flax import nnx

from jaxad.diffusion.uvit import PrototypeUViT


@pytest.mark.parametrize(("depth", "skips"), [(1, []), (2, [1]), (3, [2]), (4, [2, 3]), (5, [3, 4])])
def test_the_second_half_takes_the_skips_of_the_first(depth, skips):
    model = nnx.eval_shape(lambda: PrototypeUViT(8, (2, 2), width=8, heads=2, depth=depth, rngs=nnx.Rngs(0)))
    assert [index for index, block in enumerate(model.blocks) if block.skip is not None] == skips
