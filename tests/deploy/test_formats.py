"""Which detectors export to what: each is tried, and the table of the guide says what came of it."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import numpy as np
import onnxruntime
import pytest
from jax import export as jax_export

from jaxad import parallel
from jaxad.deploy.onnx_conversion import ConversionError, to_onnx
from jaxad.deploy.program import Input, Program
from jaxad.deploy.stablehlo import to_stablehlo
from jaxad.detector import detectors
from jaxad.inference.predictor import Predictor
from jaxad.testing import toy_model

GUIDE = Path(__file__).parents[2] / "docs/guides/deploy.md"
NAMES = detectors.names()
QUICK = ("patch-bank",)
"""What stands for all in a quick run."""
TRIED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
SEEDED = {"dpdiff", "vlmdiff"}


def table():
    """{detector: (platforms of StableHLO, whether ONNX)} as the guide has it."""
    section = GUIDE.read_text().partition("## Which detectors")[2]
    rows = re.findall(r"^\| `([\w-]+)` \| ([\w, ]+) \| (\w+) \|", section, re.MULTILINE)
    return {name: (tuple(platforms.split(", ")), onnx == "yes") for name, platforms, onnx in rows}


@pytest.fixture(scope="module")
def batch(parts, program_of):
    """An image batch for a program by its inputs, and what jaxad itself says of it."""

    def of(name):
        program = program_of(name)
        first = [0, 5, 9]
        mesh = parallel.make_mesh(devices=jax.devices()[:1])
        predictor = Predictor(program.detector, program.protocol.name, batch_size=3, mesh=mesh)
        (output,) = predictor.stream(parts.test, indices=first)
        loaded = output.loaded.batch
        known = {**loaded.images, "seed": loaded.seed, "category": loaded.category}
        return [np.asarray(known[one.name]) for one in program.inputs], output

    return of


def agrees(found, output):
    scores, maps = map(np.asarray, found)
    # XLA does not optimize in tests; what is left is the order of sums.
    np.testing.assert_allclose(scores, output.scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(maps, output.maps, rtol=1e-3, atol=1e-4 * np.abs(output.maps).max())


def test_the_table_names_every_detector():
    assert set(table()) == set(NAMES)


@pytest.mark.parametrize("name", TRIED)
def test_onnx_gives_what_jaxad_gives(name, program_of, batch):
    program = program_of(name)
    names = [one.name for one in program.inputs]
    assert ("seed" in names) == (name in SEEDED)
    model = to_onnx(
        lambda *given: program.one(program.arrays, dict(zip(names, given, strict=True))),
        program.inputs,
        ("score", "map"),
    )
    assert table()[name][1]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs, output = batch(name)
    agrees(session.run(["score", "map"], dict(zip(names, inputs, strict=True))), output)


@pytest.mark.parametrize("name", TRIED)
def test_stablehlo_gives_what_jaxad_gives_and_is_lowered_for_all_that_the_table_names(name, program_of, batch):
    program = program_of(name)
    contents, refused = to_stablehlo(program)
    assert tuple(contents) == table()[name][0], refused
    content = contents["cpu"]
    inputs, output = batch(name)
    agrees(jax_export.deserialize(bytearray(content)).call(program.arrays, *inputs), output)


def test_a_loop_that_is_too_long_for_onnx_is_refused_in_words(program_of):
    changes = {"sampler": "ddpm", "start_timestep": 300}
    program = Program.of(toy_model(**changes), program_of("dpdiff").protocol)
    names = [one.name for one in program.inputs]
    with pytest.raises(ConversionError, match="a loop of 301 turns is too long"):
        to_onnx(lambda *g: program.one(program.arrays, dict(zip(names, g, strict=True))), program.inputs, ("s", "m"))


def test_all_operations_without_a_form_are_listed():
    def function(pixels):
        x = pixels.astype(np.float32)
        return (jax.lax.cumlogsumexp(x) + jax.lax.sort((x, x))[1],)

    with pytest.raises(ConversionError) as error:
        to_onnx(function, [Input("x", "uint8", (4,))], ("y",))
    assert "cumlogsumexp: has no form in ONNX" in str(error.value)
    assert "sort: sorting several arrays" in str(error.value)
