"""Settings of every test: strict shapes, several CPU devices, no hub; and where real data is found."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

# Toy programs compile for seconds and run for milliseconds: optimize little, and compile each program once a session.
# Without fusion emitters compilation takes a quarter less. XLA ends at a flag that it does not know, as later ones may.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false" * metadata.version("jaxlib").startswith("0.10."),
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxad-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.02")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the processors, and threads of torch in each would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

import hypothesis
import pytest

# Traces are made of millions of objects that live on, so that looking through them often finds next to nothing.
gc.set_threshold(200_000, 20, 20)

# A busy machine must not fail a test for being slow.
hypothesis.settings.register_profile("jaxad", deadline=None)
hypothesis.settings.load_profile("jaxad")

TEST_DATA = Path(os.environ.get("JAXAD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


TESTS = Path(__file__).parent
QUICK = (
    "config",
    "data/test_holdout.py",
    "data/test_layout.py",
    "data/test_sampling.py",
    "diffusion/test_schedule.py",
    "docs/test_benchmarks.py",
    "docs/test_pages.py",
    "io",
    "metrics/test_classes.py",
    "metrics/test_curves.py",
    "metrics/test_grids.py",
    "metrics/test_histogram.py",
    "metrics/test_operators.py",
    "metrics/test_regions.py",
    "report/test_schema.py",
    "test_layers.py",
    "test_readme.py",
    "test_registry.py",
)
"""Tests of pure functions, by file or folder, which the save loop runs (`pytest -m quick`): under 20 s on two cores."""

SLOW = (
    "bench/test_dpdiff.py",
    "bench/test_evaluation.py",
    "bench/test_vlmdiff.py::test_fsdp_divides",
    "cli/test_caption_internvl",
    "cli/test_tiles.py",
    "cli/test_vlmdiff_chain.py",
    "cli/test_watch",
    "data/test_depth.py::test_a_detector_reads_what_it_judges_as_it_was_fitted",
    "data/test_files.py::test_a_run_opens_each_image_twice",
    "data/test_prepared.py::test_training_and_predictions_are_those_of_the_folder",
    "detectors/clipfusion/test_networks.py::test_what_the_texts",
    "detectors/clipfusion/test_detector.py",
    "detectors/dpdiff/test_denoiser.py::test_gradient_reaches",
    "detectors/dpdiff/test_detector.py::test_a_step_on_windows_costs",
    "detectors/dpdiff/test_detector.py::test_every_switch_trains_and_predicts",
    "detectors/dpdiff/test_detector.py::test_groups_are_means",
    "detectors/dpdiff/test_detector.py::test_image_scores_are_of",
    "detectors/dpdiff/test_detector.py::test_levels",
    "detectors/dpdiff/test_detector.py::test_loss_is_1",
    "detectors/dpdiff/test_detector.py::test_means_of_levels",
    "detectors/dpdiff/test_detector.py::test_the_diffusion_loss_reaches",
    "detectors/dpdiff/test_detector.py::test_the_linear_denoiser_is_resumed_and_restored",
    "detectors/dpdiff/test_detector.py::test_what_is_made_of_remembered_residuals",
    "detectors/dpdiff/test_detector.py::test_what_is_remembered_is_resumed_and_restored",
    "detectors/dpdiff/test_detector.py::test_the_noise_of_a_pair",
    "detectors/dpdiff/test_detector.py::test_training_begins_with_the",
    "detectors/dpdiff/test_detector.py::test_training_sees_windows",
    "detectors/test_dinomaly.py::test_the_share_of_easy_points_grows",
    "detectors/test_dinomaly.py::test_it_is_fitted_resumed_and_restored",
    "detectors/test_hvq_trans.py::test_entries_and_features",
    "detectors/test_hvq_trans.py::test_gradients_of_the_error",
    "detectors/test_hvq_trans.py::test_the_hierarchy",
    "detectors/test_inp_former.py::test_the_decoder_mixes",
    "detectors/test_peers.py::test_gradients_reach_all_and_chance_is_of_the_key_alone[hvq-trans]",
    "detectors/test_peers.py::test_gradients_reach_all_and_chance_is_of_the_key_alone[inp-former]",
    "detectors/test_peers.py::test_gradients_reach_all_and_chance_is_of_the_key_alone[rd4ad]",
    "detectors/test_peers.py::test_gradients_reach_all_and_chance_is_of_the_key_alone[uniad]",
    "detectors/test_peers.py::test_gradients_reach_all_and_chance_is_of_the_key_alone[vitad]",
    "detectors/test_promptad.py::test_a_run_from_the_command_line",
    "detectors/vlmdiff/test_detector.py",
    "detectors/vlmdiff/test_internvl.py",
    "detectors/vlmdiff/test_published.py::test_finished_detector",
    "diffusion/test_layers.py::test_wrong_inputs",
    "experiments/clipfusion/test_rows.py::test_promptad_is_trained",
    "diffusion/test_rematerialization.py",
    *(f"inference/test_gray_masks.py::test_codes_are_resized_as_they_are[{code}]" for code in (2, 3, 4, 5)),
    "inference/test_gray_masks.py::test_codes_are_resized_as_they_are_of_tiles_and_regions",
    "inference/test_regions.py",
    "inference/test_tiled.py",
    "models/captioner/test_network.py",
    "parity/test_clipfusion.py::test_benchmark_times",
    "parity/test_clipfusion.py::test_every_map_and_score[0",
    "parity/test_conv_backbones.py::test_real_efficientnet_lite[1",
    "parity/test_conv_backbones.py::test_real_efficientnet_lite[2",
    "parity/test_dpdiff.py::test_loss_and_gradients[u-net]",
    "parity/test_hvq_trans.py::test_maps",
    "parity/test_inp_former.py::test_maps",
    "parity/test_promptad.py::test_loss_gradients_and_what_is_told[equations-1]",
    "parity/test_rd4ad.py::test_maps",
    "serve/",
    "test_no_telemetry.py",
    "training/autoencoder/test_trainer.py::test_killed_and_resumed",
    "training/autoencoder/test_trainer.py::test_saved_folder",
    "training/test_feeding.py",
    "training/test_life.py",
    "training/test_memory.py",
    "training/test_micro_batch.py",
    "training/test_recovery.py",
    "training/test_trainer.py::test_a_run_stopped_at_any_step_and_resumed_is_bit_equal_to_an_undisturbed_one[7]",
    "training/test_trainer.py::test_an_error_in_the_choice",
    "training/test_update.py",
)
"""Tests of several seconds that quicker ones stand for, by the beginning of their names: `pytest -m slow` runs them."""


def pytest_ignore_collect(collection_path, config):
    """Leaves out files that would be imported for nothing.

    A quick run imports quick tests alone. A run that leaves parity out does not import torch; one that asks for parity
    fails for want of it.
    """
    if config.option.markexpr == "quick":
        below = any((TESTS / place).is_relative_to(collection_path) for place in QUICK)
        return None if below or _is_quick(collection_path) else True
    return True if "not parity" in config.option.markexpr and collection_path == TESTS / "parity" else None


def _is_quick(path):
    return any(path.is_relative_to(TESTS / place) for place in QUICK)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid.removeprefix("tests/").startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if _is_quick(item.path) and not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.quick)
    if TEST_DATA.is_dir():
        return
    reason = f"no real test data at {TEST_DATA} (set JAXAD_TEST_DATA)"
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with `parts/` and `weights/`, described in its README."""
    return TEST_DATA


@pytest.fixture
def few_collected():
    """Garbage collections look at what the test makes alone, and not at all that its worker has run before."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """The made-up parts as a data set: two categories, 7 training, 5 hold-out and 8 test images each."""
    import jaxad
    from jaxad.testing import make_parts

    return jaxad.data.load(f"folder:{make_parts(tmp_path_factory.mktemp('parts'))}")


@pytest.fixture(scope="session")
def trained(parts, tmp_path_factory):
    """An undisturbed run of the toy detector; leave its workdir as it is."""
    import jaxad
    from jaxad.testing import toy_model, toy_training

    workdir = tmp_path_factory.mktemp("trained") / "run"
    return jaxad.fit(toy_model(), parts.train, toy_training(), workdir=workdir, holdout=parts.holdout)
