"""Wrong lines of the evaluation protocols."""

from __future__ import annotations

from tests.campaigns.mutant_lists.mutant import Mutant

_PART, _PROTOCOLS, _LARGE = "protocols", "jaxad/metrics/protocols.py", "jaxad/metrics/large.py"
_PROCESSING_TESTS = ("tests/metrics/test_processing.py",)
_PROTOCOLS_TESTS = ("tests/metrics/test_protocols.py",)
_LARGE_TESTS = ("tests/metrics/test_large.py",)

MUTANTS = (
    Mutant(
        _PART,
        "masks of exact-448 are resized by floor, not by centers",
        _PROTOCOLS,
        "        size=448,\n        smoothing=_gaussian(4.0),\n",
        '        size=448,\n        mask_resize="floor",\n        smoothing=_gaussian(4.0),\n',
        _PROCESSING_TESTS,
    ),
    Mutant(
        _PART,
        "ader sees the gray values of masks, as diad does",
        _PROTOCOLS,
        "        mask_above=0.5,\n",
        "        mask_above=0.5,\n        gray_masks=True,\n",
        _PROTOCOLS_TESTS,
    ),
    Mutant(
        _PART,
        "masks of ader are positive above 0",
        _PROTOCOLS,
        "        mask_above=0.5,\n",
        "",
        _PROCESSING_TESTS,
    ),
    Mutant(
        _PART,
        "ader takes labels of the data set",
        _PROTOCOLS,
        "        mask_above=0.5,\n        label_from_mask=True,\n",
        "        mask_above=0.5,\n",
        _PROTOCOLS_TESTS,
    ),
    Mutant(
        _PART,
        "AUPRO of ader rescales FPR by its maximum alone",
        _PROTOCOLS,
        'aupro_grid=AuproGrid(100, rescale="range")',
        "aupro_grid=AuproGrid(100)",
        _PROTOCOLS_TESTS,
    ),
    Mutant(
        _PART,
        "diad does not flip AUROC",
        _PROTOCOLS,
        "rules=MetricRules(flip_auroc=True, aupro_grid=AuproGrid(200))",
        "rules=MetricRules(aupro_grid=AuproGrid(200))",
        _PROTOCOLS_TESTS,
    ),
    Mutant(
        _PART,
        "diad smooths by 4 px, as the others do",
        _PROTOCOLS,
        "smoothing=_gaussian(5.0)",
        "smoothing=_gaussian(4.0)",
        _PROCESSING_TESTS,
    ),
    Mutant(
        _PART,
        "dinomaly takes labels of the cropped masks",
        _PROTOCOLS,
        "        top_share=0.01,\n",
        "        top_share=0.01,\n        label_from_mask=True,\n",
        _PROTOCOLS_TESTS,
    ),
    Mutant(
        _PART,
        "dinomaly smooths with a reflected border",
        _PROTOCOLS,
        'Smoothing(4.0, 2, "zero")',
        "Smoothing(4.0, 2)",
        _PROCESSING_TESTS,
    ),
    Mutant(
        _PART,
        "winclip does not fill the holes of regions",
        _PROTOCOLS,
        ', rescale="range"), filled_regions=True\n',
        ', rescale="range")\n',
        _PROTOCOLS_TESTS,
    ),
    Mutant(
        _PART,
        "image scores of winclip are of smoothed maps",
        _PROTOCOLS,
        "        score_smoothed=False,\n",
        "",
        _PROCESSING_TESTS,
    ),
    Mutant(
        _PART,
        "smoothing ends at 3 sigma",
        _PROTOCOLS,
        "return Smoothing(sigma, int(4 * sigma + 0.5))",
        "return Smoothing(sigma, int(3 * sigma + 0.5))",
        _PROCESSING_TESTS,
    ),
    Mutant(
        _PART,
        "maps of tiles are mirrored about the last pixel, not its edge, when smoothed",
        _LARGE,
        "border = cv2.BORDER_REFLECT if",
        "border = cv2.BORDER_REFLECT_101 if",
        _LARGE_TESTS,
    ),
    Mutant(
        _PART,
        "the top 1 % are those of all tiles, not as many pixels as one tile has",
        _LARGE,
        "most = min(max(1, int(protocol.size**2 * protocol.top_share)), map.size)",
        "most = max(1, int(map.size * protocol.top_share))",
        _LARGE_TESTS,
    ),
    Mutant(
        _PART,
        "windows of the image score reach over the border of a map of tiles",
        _LARGE,
        "map = means[: map.shape[0] - height + 1, : map.shape[1] - width + 1]",
        "map = means",
        _LARGE_TESTS,
    ),
    Mutant(
        _PART,
        "maps of tiles are reduced by interpolation, not by means",
        _LARGE,
        "interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR",
        "interpolation=cv2.INTER_LINEAR",
        _LARGE_TESTS,
    ),
    Mutant(
        _PART,
        "in a region, pixels outside of it count for those inside when maps are smoothed",
        _LARGE,
        "np.where(inside, map, 0)) / np.where(inside, share, 1)",
        "map)",
        _LARGE_TESTS,
    ),
)
