"""Files are mapped while their arrays live, and filling a network holds little more than the network."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from jaxad.errors import WeightsError
from jaxad.models.weights.mapped_file import MappedFile

MAPS = Path("/proc/self/maps")


@pytest.fixture
def file(tmp_path):
    (tmp_path / "numbers").write_bytes(np.arange(100, dtype=np.float32).tobytes())
    return tmp_path / "numbers"


@pytest.mark.skipif(not MAPS.exists(), reason="this system does not list what is mapped")
def test_mapping_ends_with_the_last_array(file):
    mapped = MappedFile(file, "numbers")
    assert str(file) not in MAPS.read_text()
    first = mapped.array(0, np.dtype(np.float32), (10, 10))[3:]
    second = mapped.array(40, np.dtype(np.float32), (3,), (2,))
    assert MAPS.read_text().count(str(file)) == 1
    del first
    assert str(file) in MAPS.read_text()
    np.testing.assert_array_equal(second, [10, 12, 14])
    del second
    assert str(file) not in MAPS.read_text()
    assert mapped.array(396, np.dtype(np.float32), ()) == 99


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (101,), None),
        (4, (100,), None),
        (-4, (1,), None),
        (0, (2,), (100,)),
        (0, (2,), (-1,)),
        (396, (2, 2), (0, 1)),
    ],
)
def test_array_beyond_the_file_is_refused(file, offset, shape, strides):
    with pytest.raises(WeightsError, match=f"{file}: damaged, truncated or no numbers file"):
        MappedFile(file, "numbers").array(offset, np.dtype(np.float32), shape, strides)


PEAK = """
    import resource, types
    from pathlib import Path
    import jax, numpy as np
    from flax import nnx
    from jaxad.models.weights.safetensors_file import write_safetensors
    from jaxad.models.weights.key_map import LINEAR, fill
    from jaxad.models.weights.loader import find_weights
    from jaxad.nn import module_state

    names, file = [f"{i}.weight" for i in range(48)], Path("net.safetensors")
    write_safetensors(file, dict.fromkeys(names, np.ones((2048, 2048), np.float16)))
    rngs = types.SimpleNamespace(params=lambda: jax.random.key(0))
    make = lambda: nnx.List([nnx.Linear(2048, 2048, use_bias=False, rngs=rngs) for _ in names])
    module, before = nnx.eval_shape(make), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    arrays = module_state.split(fill(module, find_weights(file), [("{}", "{}", LINEAR)]))[1].values()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(sum(array.nbytes for array in arrays), (after - before) * 1024)
"""


@pytest.mark.slow
def test_filling_needs_little_more_than_the_parameters(tmp_path):
    """400 MB of float16 become 800 MB of float32, and memory grows by little more than that."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    parameters, peak = map(int, result.stdout.split())
    assert parameters == 48 * 2048 * 2048 * 4
    assert peak < 1.3 * parameters
