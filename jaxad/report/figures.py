"""The figures of the page: curves, gallery, prototype maps and t-SNE, as values for its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxad.inference.heat import contour, heat
from jaxad.inference.maps import fit_map, heat_scale
from jaxad.inference.results import (
    PICTURE,
    SMALLER,
    Case,
    Curves,
    Evaluation,
    MethodFigure,
    PrototypeFigure,
    TsneInput,
    choose_patches,
)
from jaxad.io.pictures import data_uri, shrink
from jaxad.report import charts
from jaxad.report.images import panels

if TYPE_CHECKING:
    from jaxad.inference.sheet import Sheet

_ON_THE_WAY: Sequence[tuple[str, bool, Mapping[str, tuple[str, str]]]] = (
    ("metric", True, {"image_auroc": ("image", "image AUROC"), "pixel_ap": ("pixel", "pixel AP")}),
    ("loss", False, {"loss": ("image", "loss")}),
    (
        "image score",
        False,
        {"score_median": ("image", "median"), "score_p95": ("image base", "95%"), "score_max": ("pixel", "highest")},
    ),
)
"""Charts of a training: label of the values, whether they are shares, and style and title of the columns."""
_GALLERY_BYTES, _PROTOTYPE_BYTES, _METHOD_BYTES, _SHEET_BYTES = 3_200_000, 800_000, 700_000, 800_000
_TSNE_HUES = 10


def curves(report: Mapping[str, Any], evaluation: Evaluation) -> list[dict[str, Any]]:
    """For each category the ROC chart, the precision-recall chart and the score histogram, as far as they exist.

    Args:
        report: the dictionary of report.json.
        evaluation: gives curves, scores and thresholds.

    Returns:
        [{`category`, `figures` [{`kind` "roc", "pr" or "scores", `svg`, `area` {"image" or "pixel": value}}]}].
    """
    axes = {"roc": ("false-positive rate", "true-positive rate"), "pr": ("recall", "precision")}
    sections = []
    for category, metrics in report["classes"].items():
        own, other = evaluation.curves.get(category, Curves()), evaluation.baseline_curves.get(category, Curves())
        figures = []
        for kind, (x_label, y_label) in axes.items():
            lines = [
                charts.Line(curve[0], curve[1], f"{level} {style}".strip(), f"{level}{', baseline' if style else ''}")
                for level in ("image", "pixel")
                for source, style in ((other, "base"), (own, ""))
                if (curve := getattr(source, f"{level}_{kind}")) is not None
            ]
            area = {level: metrics[f"{level}_{'auroc' if kind == 'roc' else 'ap'}"] for level in ("image", "pixel")}
            if lines:
                chart = charts.unit_chart(lines, x_label, y_label, diagonal=kind == "roc")
                figures.append({"kind": kind, "svg": chart, "area": area})
        if category in evaluation.scores and len(evaluation.scores[category][0]):
            scores, labels = evaluation.scores[category]
            chart = charts.score_chart(scores, labels, evaluation.thresholds.get(category))
            figures.append({"kind": "scores", "svg": chart, "area": {}})
        if figures:
            sections.append({"category": category, "figures": figures})
    return sections


def training(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the run was worth on the way, from `training` of a report.

    Returns:
        For each part of the data that was scored: `part` "holdout" or "test", how many `images` `of` how many, and
        `figures` [{`svg`, `lines` [(style, name, last value)], `share` whether values are shares of 1}].
    """
    sections = []
    for part, found in report.get("training", {}).items():
        steps, figures = np.array(found["steps"], np.float64), []
        for label, share, names in _ON_THE_WAY:
            lines = []
            for name, (style, title) in names.items():
                column = found["values"].get(name, [])
                known = np.array([value is not None for value in column], bool)
                if known.any():
                    values = np.array([value for value in column if value is not None])
                    lines.append(charts.Line(steps[known], values, style, title))
            if lines:
                last = [(line.style, line.name, float(line.y[-1])) for line in lines]
                figures.append({"svg": charts.step_chart(steps, lines, label), "lines": last, "share": share})
        counts = {name: found.get(name) for name in ("images", "of")}
        if figures:
            sections.append({"part": part, **counts, "figures": figures})
    return sections


def gallery(report: Mapping[str, Any], evaluation: Evaluation) -> dict[str, Any] | None:
    """The cases by category, weakest category first, with the largest pictures that keep the page small.

    Returns:
        `categories` [{`category`, `scale` (low, high), `cards`}], and how many are `left_out`; None without cases.
    """
    if not evaluation.cases:
        return None
    auroc = {name: metrics["image_auroc"] for name, metrics in report["classes"].items()}
    names = dict.fromkeys(case.decision.category for case in evaluation.cases)
    names = sorted(names, key=lambda name: auroc[name] if auroc.get(name) is not None else 2.0)
    order = {"best": 0, "median": 1, "worst": 2}
    by_name = {
        name: sorted((case for case in evaluation.cases if case.decision.category == name), key=lambda c: order[c.rank])
        for name in names
    }
    scales = {name: evaluation.heat.get(name) or _scale(cases, evaluation, name) for name, cases in by_name.items()}
    shown: list[dict[str, Any]] = []
    for side in (PICTURE, *SMALLER):
        shown, size = [], 0
        for name, cases in by_name.items():
            cards = [_card(case, scales[name], side, evaluation.pixel_thresholds.get(name)) for case in cases]
            size += sum(len(uri) for card in cards for uri in card["pictures"].values())
            if size > _GALLERY_BYTES:
                break
            shown.append({"category": name, "scale": scales[name], "cards": cards})
        if len(shown) == len(by_name):
            break
    return {"categories": shown, "left_out": len({*by_name, *evaluation.scores}) - len(shown)}


def _scale(cases: Sequence[Case], evaluation: Evaluation, category: str) -> tuple[float, float]:
    normal = [case.map.ravel() for case in cases if case.decision.label == 0] or [case.map.ravel() for case in cases]
    return heat_scale(evaluation.pixel_thresholds.get(category), np.concatenate(normal))


def _card(case: Case, scale: tuple[float, float], side: int, pixel: float | None) -> dict[str, Any]:
    pictures = panels(case.image, case.mask, case.map, low=scale[0], high=scale[1], side=side, threshold=pixel)
    uris = {name: uri(picture, ".png" if name == "mask" else ".jpg") for name, picture in pictures.items()}
    height, width = pictures["input"].shape[:2]
    return {"rank": case.rank, "decision": case.decision, "pictures": uris, "width": width, "height": height}


def prototypes(figures: Sequence[PrototypeFigure]) -> list[dict[str, Any]]:
    """Similarity maps on one color scale for each prototype and category, of as many images as the size limit allows.

    Returns:
        [{`decision`, `input` picture, `maps` [(name, low, high, picture)]}], pictures as data URIs.
    """
    values: dict[tuple[str, str], list[np.ndarray]] = {}
    for figure in figures:
        for name, similarity in zip(figure.names, figure.maps, strict=True):
            values.setdefault((figure.decision.category, name), []).append(np.ravel(similarity))
    ranges = {key: np.quantile(np.concatenate(parts), (0.01, 0.99)) for key, parts in values.items()}
    shown, size = [], 0
    for figure in figures:
        image = shrink(figure.image, 160)
        source = uri(image if figure.mask is None else contour(image, figure.mask), ".jpg")
        maps = []
        for name, similarity in zip(figure.names, figure.maps, strict=True):
            low, high = map(float, ranges[figure.decision.category, name])
            picture = heat(fit_map(similarity, image.shape[:2]), low=low, high=high + 1e-6, palette="viridis")
            maps.append((name, low, high, uri(picture, ".jpg")))
        size += len(source) + sum(len(uri) for *_, uri in maps)
        if size > _PROTOTYPE_BYTES:
            break
        shown.append({"decision": figure.decision, "input": source, "maps": maps})
    return shown


def methods(figures: Sequence[MethodFigure]) -> list[dict[str, Any]]:
    """What the detector makes of images, of as many as the size limit allows.

    Returns:
        [{`decision`, `pictures` [(name, picture)]}], pictures as data URIs.
    """
    shown, size = [], 0
    for figure in figures:
        pictures = [(name, uri(picture, ".jpg")) for name, picture in figure.pictures.items()]
        size += sum(len(picture) for _, picture in pictures)
        if size > _METHOD_BYTES:
            break
        shown.append({"decision": figure.decision, "pictures": pictures})
    return shown


def beside(sheet: Sheet | None) -> dict[str, Any] | None:
    """Detectors beside each other, on as many images as the size limit allows.

    Returns:
        `heads`, `rows` [(name, pictures as data URIs)], and how many images are `left_out`; None without a sheet.
    """
    if sheet is None:
        return None
    shown, size = [], 0
    for name, row in zip(sheet.names, sheet.rows, strict=True):
        pictures = [uri(picture, ".jpg") for picture in row]
        size += sum(map(len, pictures))
        if size > _SHEET_BYTES:
            break
        shown.append((name, pictures))
    return {"heads": sheet.heads, "rows": shown, "left_out": len(sheet.rows) - len(shown)}


def tsne(patches: TsneInput | None) -> dict[str, Any] | None:
    """Both t-SNE charts. The second starts from the first's layout, so that a patch can be followed between them.

    Returns:
        `views` [{`title`, `svg`, `mixing`, the share of anomalous patches next to a normal one}], `legend`
        [(hue, category)], numbers of `patches` and of `anomalous` ones; None with fewer than 10 patches.
    """
    if patches is None or len(patches.before) < 10:
        return None
    chosen = choose_patches(np.asarray(patches.anomalous).astype(bool))
    starred, categories = np.asarray(patches.anomalous).astype(bool)[chosen], np.asarray(patches.categories)[chosen]
    names, colors = np.unique(categories, return_inverse=True)
    before, after = (np.asarray(features, np.float32)[chosen] for features in (patches.before, patches.after))
    layout = _embed(before, "pca")
    pair = [("before", before, layout), ("after", after, _embed(after, layout / layout[:, 0].std() * 1e-4))]
    views = [
        {
            "title": title,
            "svg": charts.scatter_chart(xy, colors % _TSNE_HUES, starred, f"t-SNE of patch features {title}"),
            "mixing": _mixing(features, starred),
        }
        for title, features, xy in pair
    ]
    legend = [(i % _TSNE_HUES, name) for i, name in enumerate(names)]
    return {"views": views, "legend": legend, "patches": len(chosen), "anomalous": int(starred.sum())}


def _embed(features: np.ndarray, start: Any) -> np.ndarray:
    # Imported here: pages without patches, and all that is shown before, need not wait for it.
    import threadpoolctl
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    tsne = TSNE(init=start, perplexity=min(30, (len(features) - 1) / 3), max_iter=500, random_state=0)
    # Beside other work, t-SNE's threads wait for each other: four times slower.
    with threadpoolctl.threadpool_limits(1):
        return tsne.fit_transform(PCA(min(50, *features.shape), random_state=0).fit_transform(features))


def _mixing(features: np.ndarray, anomalous: np.ndarray) -> float | None:
    """Share of anomalous patches whose nearest other patch is normal: it grows as reconstruction repairs them."""
    if anomalous.all() or not anomalous.any():
        return None
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=1).fit(features).kneighbors(return_distance=False)[:, 0]
    return float((~anomalous[nearest])[anomalous].mean())


def uri(picture: np.ndarray, suffix: str) -> str:
    """A picture uint8 [h w 3] of the page as a data URI, ".png" or ".jpg"."""
    return data_uri(picture, suffix, quality=80)
