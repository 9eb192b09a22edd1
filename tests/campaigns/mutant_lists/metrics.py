"""Wrong lines of the metrics."""

from __future__ import annotations

from tests.campaigns.mutant_lists.mutant import Mutant

_PART, _ROOM, _TESTS = "metrics", "jaxad/metrics", "tests/metrics"
_CURVES, _PIXELS, _GRIDS = (f"{_ROOM}/{name}.py" for name in ("curves", "pixels", "grids"))
_CURVES_TESTS = (f"{_TESTS}/test_curves.py",)
_PIXELS_TESTS = (f"{_TESTS}/test_pixels.py",)
_GRIDS_TESTS = (f"{_TESTS}/test_grids.py",)
_CLASSES_TESTS = (f"{_TESTS}/test_classes.py",)

MUTANTS = (
    Mutant(
        _PART,
        "ties count as won in AUROC",
        _CURVES,
        "steps.positives @ (below + steps.negatives / 2)",
        "steps.positives @ (below + steps.negatives)",
        _CURVES_TESTS,
        before="tests/metrics/test_curves.py::test_image_metrics_equal_scikit_learn_with_ties",
    ),
    Mutant(
        _PART,
        "precision of tied scores is that before the step",
        _CURVES,
        "tp, fp = np.cumsum(steps.positives)[found], np.cumsum(steps.negatives)[found]",
        "tp, fp = np.cumsum(steps.positives)[found], (np.cumsum(steps.negatives) - steps.negatives)[found]",
        _CURVES_TESTS,
        before="tests/metrics/test_curves.py::test_image_metrics_equal_scikit_learn_with_ties",
    ),
    Mutant(
        _PART,
        "AUPRO ends at the last threshold below FPR 0.3, without interpolation",
        _CURVES,
        "    width = np.clip(limit - fpr[:-1], 0, np.diff(fpr))\n",
        "    width = np.where(fpr[1:] <= limit, np.diff(fpr), 0.0)\n",
        _CLASSES_TESTS,
        before="tests/metrics/test_classes.py::test_all_metrics_agree_with_the_oracles",
    ),
    Mutant(
        _PART,
        "AUPRO is integrated up to FPR 1",
        f"{_ROOM}/rules.py",
        "fpr_limit: float = 0.3",
        "fpr_limit: float = 1.0",
        _CLASSES_TESTS,
        before="tests/metrics/test_classes.py::test_all_metrics_agree_with_the_oracles",
    ),
    Mutant(
        _PART,
        "regions are 4-connected",
        f"{_ROOM}/regions.py",
        "mask.astype(np.uint8), connectivity=8",
        "mask.astype(np.uint8), connectivity=4",
        (f"{_TESTS}/test_regions.py",),
        before="tests/metrics/test_regions.py::test_weights_are_one_over_the_area_of_eight_connected_regions[0]",
    ),
    Mutant(
        _PART,
        "PRO is the mean over images of the mean over their regions",
        _PIXELS,
        "            weights.append(weight[weight > 0])\n            self.regions += regions\n",
        "            weights.append(weight[weight > 0] / regions)\n            self.regions += 1\n",
        _CLASSES_TESTS,
        before="tests/metrics/test_classes.py::test_all_metrics_agree_with_the_oracles",
    ),
    Mutant(
        _PART,
        "FPR leaves out the normal pixels of anomalous images",
        _PIXELS,
        "normal.append(scores[~mask])",
        "normal.append(scores[:0])",
        _CLASSES_TESTS,
        before="tests/metrics/test_classes.py::test_all_metrics_agree_with_the_oracles",
    ),
    Mutant(
        _PART,
        "PRO with holes filled is scaled to end at 1",
        _PIXELS,
        "scale = float(self.weights.mass.sum()) / self.regions",
        "scale = 1.0",
        _PIXELS_TESTS,
        before="",
    ),
    Mutant(
        _PART,
        "a region's area is its whole defect, also what lies outside of what is judged",
        _PIXELS,
        "mask = np.zeros(map.shape, bool) if mask is None else mask & part",
        "mask = np.zeros(map.shape, bool) if mask is None else mask",
        _CLASSES_TESTS,
        before="",
    ),
    Mutant(
        _PART,
        "normal pixels outside of what is judged count",
        _PIXELS,
        "self._wait(map[part & ~mask])",
        "self._wait(map[~mask])",
        _CLASSES_TESTS,
        before="",
    ),
    Mutant(
        _PART,
        "scores equal to a threshold count as above it",
        _GRIDS,
        'np.searchsorted(scores[order], thresholds, side="right")',
        'np.searchsorted(scores[order], thresholds, side="left")',
        _GRIDS_TESTS,
        before="tests/metrics/test_grids.py::test_aupro_of_a_grid_agrees_with_the_loop_over_thresholds_and_regions[normal-8192]",
    ),
    Mutant(
        _PART,
        "a threshold at FPR 0.3 exactly is left out where it counts",
        _GRIDS,
        "(fpr <= limit if grid.at_limit else fpr < limit)",
        "(fpr < limit)",
        _GRIDS_TESTS,
        before="",
    ),
    Mutant(
        _PART,
        "the thresholds of F1 end before the highest score",
        _GRIDS,
        "np.linspace(0, 1, steps) * (high - low)",
        "np.linspace(0, 1, steps, endpoint=False) * (high - low)",
        _GRIDS_TESTS,
        before="tests/metrics/test_grids.py::test_f1_of_a_grid_agrees_with_the_loop_over_thresholds[normal-8192]",
    ),
    Mutant(
        _PART,
        "the mean over categories is weighted by their images",
        f"{_ROOM}/classes.py",
        "    return {name: mean(result[name] for result in classes.values()) for name in METRICS}",
        "    def weighted(name: str) -> float | None:\n"
        "        known = [result for result in classes.values() if result[name] is not None]\n"
        '        images = [result["n_normal"] + result["n_anomalous"] for result in known]\n'
        "        return float(np.average([result[name] for result in known], weights=images)) if known else None\n\n"
        "    return {name: weighted(name) for name in METRICS}",
        _CLASSES_TESTS,
        before="",
    ),
    Mutant(
        _PART,
        "categories with an undefined metric have no part in the mean of any",
        f"{_ROOM}/classes.py",
        "    return {name: mean(result[name] for result in classes.values()) for name in METRICS}",
        "    whole = [result for result in classes.values() if None not in [result[name] for name in METRICS]]\n"
        "    return {name: mean(result[name] for result in whole) for name in METRICS}",
        _CLASSES_TESTS,
        before="tests/inference/test_evaluation.py::test_undefined_metrics_are_null_with_a_reason_and_left_out_of_the_mean",
    ),
)
