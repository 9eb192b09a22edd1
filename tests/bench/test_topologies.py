"""Names of topologies; and, where a compiler for TPUs is installed, what it makes of small programs."""

import dataclasses

import pytest

from jaxad.bench._account import held
from jaxad.bench._detector_speed import prediction, training_step
from jaxad.bench._dpdiff_detectors import PROTOCOL, abstract_dpdiff
from jaxad.bench._plan import plan
from jaxad.bench._topologies import CHIPS, _gpu_target, find_topology
from jaxad.bench._vlmdiff_networks import TINY, built, features
from jaxad.config import TrainConfig, VLMDiffConfig
from jaxad.errors import ConfigError
from jaxad.training.step import DetectorTrainer


def absent():
    """Nothing is run on devices that are not there."""
    raise AssertionError


@pytest.mark.parametrize("name", ["v9", "v5e:8", "v5p:2x2", "h100:9", "h100:2x2", "a100:0", ""])
def test_unknown_topologies_are_refused_by_name(name):
    with pytest.raises(ConfigError, match="topology"):
        find_topology(name)


def test_a_compiler_that_is_not_installed_is_named_by_its_extra(monkeypatch):
    from jax.experimental import topologies

    def absent(**_):
        raise RuntimeError("no plug-in")

    monkeypatch.setattr(topologies, "get_topology_desc", absent)
    for name, extra in (("v5e:2x4", "tpu"), ("h100:1", "cuda12")):
        with pytest.raises(ConfigError, match=rf"jaxad\[{extra}\]"):
            find_topology(name)


@pytest.mark.parametrize("name", [name for name, chip in CHIPS.items() if chip.gpu])
def test_the_description_of_a_gpu_holds_its_data_sheet(name):
    chip, text = CHIPS[name], _gpu_target(CHIPS[name])
    assert f"core_count: {chip.gpu.cores}\n" in text
    assert f"memory_bandwidth: {round(chip.bandwidth_gbs * 1e9)}\n" in text
    assert f"threads_per_core_limit: {chip.gpu.threads}\n" in text
    assert f"major: {chip.gpu.capability[0]}" in text
    assert text.count("{") == text.count("}")


def check_collectives(names):
    """Gradients are added up; parameters are gathered in 16 bits, and no activation changes its place."""
    assert any(name.startswith(("all-reduce", "reduce-scatter")) for name in names)
    assert not any(name.startswith("all-gather") and "f32" in name for name in names)
    assert not any("all-to-all" in name for name in names)


@pytest.mark.topology
def test_a_training_step_compiles_for_eight_tpus():
    """State is divided by 8, gradients are summed over the devices, attention is the kernel's."""
    topology = find_topology("v5e:2x4")
    detector = abstract_dpdiff("tiny", "bfloat16", image_size=224, depth=1, sinkhorn_iterations=2)
    config = TrainConfig(batch_size=16, fsdp=8)
    divided = plan(training_step(detector, config, topology.mesh()), topology, images=16, prepare=absent)
    state = DetectorTrainer(detector, TrainConfig(batch_size=16), topology.mesh(fsdp=1)).abstract_state
    batch = 16 * 256 * 128 * 2 / 8 / 1e9
    assert divided["gb"]["arguments"] - batch < 1.1 * held(state) / 8
    check_collectives(divided["collectives"])
    assert divided["kernels"]["tpu_custom_call"] >= 3
    assert "256,256]" not in divided["largest_float32"]


@pytest.mark.topology
def test_a_training_step_of_vlmdiff_compiles_for_eight_tpus():
    """As of DPDiff-AD: what is trained and its moments are divided, gradients are summed, attention is the kernel's."""
    topology = find_topology("v5e:2x4")
    # Of a width that fills a TPU's tiles, or padding would be most of what an argument takes; 256 places attend to each
    # other in the first level.
    attends = {"down_attention": (True, False), "up_attention": (False, True)}
    unet = dataclasses.replace(TINY.unet, block_out_channels=(128, 128), **attends)
    detector = built(TINY._replace(unet=unet, image_size=32), "bfloat16", remat=True)
    config = VLMDiffConfig.training("paper", batch_size=8, accumulate=2, fsdp=8)
    trainer, inputs = DetectorTrainer(detector, config, topology.mesh()), features(detector, 16)
    divided = plan(trainer.trace(inputs), topology, images=16, prepare=absent)
    whole = DetectorTrainer(detector, config, topology.mesh(fsdp=1)).abstract_state
    assert held(trainer.abstract_state) < 1.1 * held(whole) / 8
    # Beside it what is read, such as norms too small to be divided, and features.
    assert held(trainer.abstract_state) < divided["gb"]["arguments"] < 1.25 * held(whole) / 8
    check_collectives(divided["collectives"])
    # Forwards, again for the gradient, and two kernels backwards, in each attention to itself.
    assert divided["kernels"]["tpu_custom_call"] >= 4
    assert divided["fits"]


@pytest.mark.topology
def test_a_prediction_compiles_for_a_tpu():
    topology = find_topology("v5e")
    detector = abstract_dpdiff("tiny", "bfloat16", image_size=224, depth=1)
    found = plan(prediction(detector, PROTOCOL, 2, topology.mesh()), topology, images=2, prepare=absent)
    assert found["fits"]
    assert found["kernels"]["tpu_custom_call"] >= 2
    assert found["images_per_second"] > 0
