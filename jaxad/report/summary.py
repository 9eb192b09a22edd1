"""The numbers of a report as its page shows them: table of results, decisions at the thresholds, verdict, tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scipy.stats import binomtest

from jaxad.inference.threshold import rate_text
from jaxad.metrics import IMAGE_METRICS, LABELS, METRICS, PIXEL_METRICS


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 0..1 in percent, without the sign; a dash for None."""
    return "—" if value is None else f"{100 * value:.{digits}f}"


def _metrics_shown(report: Mapping[str, Any]) -> list[str]:
    """All metrics, without the pixel ones where no category has any."""
    classes = report["classes"].values()
    pixel = any(metrics[name] is not None for metrics in classes for name in PIXEL_METRICS)
    return list(METRICS) if pixel else [*IMAGE_METRICS, "mad"]


def table(report: Mapping[str, Any]) -> dict[str, Any]:
    """The table of results: one row for each category and one for their mean.

    Returns:
        `names` of the metrics shown; `rows` (category, its metrics, cells) and the cells of the `mean`, each cell with
        the value, its spread over seeds, the baseline's value, the difference to it and why it is undefined;
        `footnotes` {reason: number}; `bound`, the largest effect of binning on a pixel metric, None where unknown.
    """
    names, footnotes = _metrics_shown(report), {}
    baseline = report.get("baseline") or {"mean": {}, "classes": {}}

    def row(metrics: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
        cells = []
        for name in names:
            reason = metrics.get("undefined", {}).get(name)
            if metrics[name] is None:
                reason = reason or "undefined in every category"
                footnotes.setdefault(reason, len(footnotes) + 1)
            cell = {"value": metrics[name], "std": metrics.get("std", {}).get(name), "base": other.get(name)}
            cells.append(
                {**cell, **_delta(metrics[name], other.get(name)), "reason": reason, "mark": footnotes.get(reason)}
            )
        return cells

    classes = report["classes"].items()
    bounds = [
        bound for metrics in report["classes"].values() for bound in metrics.get("pixel_error_bound", {}).values()
    ]
    rows = [(name, metrics, row(metrics, baseline["classes"].get(name, {}))) for name, metrics in classes]
    mean = row(report["mean"], baseline["mean"])
    return {"names": names, "rows": rows, "mean": mean, "footnotes": footnotes, "bound": max(bounds, default=None)}


def _delta(value: float | None, base: float | None) -> dict[str, str]:
    """The difference to the baseline in points, and the CSS class that colors it."""
    if value is None or base is None:
        return {"delta": "", "sign": ""}
    points = round(100 * (value - base), 1) + 0.0  # no negative zero
    sign = "same" if abs(points) < 0.05 else "better" if points > 0 else "worse"
    return {"delta": f"{points:+.1f}".replace("-", "−"), "sign": sign}


def decisions(run: Mapping[str, Any]) -> dict[str, Any] | None:
    """How many defective images the thresholds find and how many normal ones they reject, from `decisions` of a report.

    Args:
        run: the dictionary of report.json, or its `baseline`.

    Returns:
        `rows` by category and their `total`; `kinds`, a row for each kind of defect of each category; None where the
        report has no decisions. A row has `found` of `defects`, `alarms` of `normals`, and their 95% intervals; that of
        a category also its `threshold`, the number of its `holdout` images and the `rate` of false alarms, as text.
    """
    counts = run.get("decisions")
    if not counts:
        return None
    rows, kinds = [], []
    for category, own in counts["categories"].items():
        rate = rate_text(own["false_alarm"], own["supported"], own["holdout"])
        known = {"category": category, "threshold": own["threshold"], "holdout": own["holdout"], "rate": rate}
        rows.append(known | _row(own))
        for kind, found in own["defects"].items():
            kinds.append({"category": category, "kind": kind} | _row({**found, "false_alarms": 0, "passed": 0}))
    return {"rows": rows, "total": _row(counts["total"]), "kinds": kinds}


def _row(counts: Mapping[str, Any]) -> dict[str, Any]:
    row = {
        "found": counts["found"],
        "defects": counts["found"] + counts["missed"],
        "alarms": counts["false_alarms"],
        "normals": counts["false_alarms"] + counts["passed"],
    }
    found, alarms = _interval(row["found"], row["defects"]), _interval(row["alarms"], row["normals"])
    return row | {"found_range": found, "alarm_range": alarms}


def _interval(hits: int, trials: int) -> tuple[float, float] | None:
    """The 95% Wilson interval of a rate."""
    if trials == 0:
        return None
    low, high = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def verdict(report: Mapping[str, Any], operating: dict[str, Any] | None) -> dict[str, Any]:
    """What the top of the page says: headline, weakest category, and how the detector compares to the baseline.

    Args:
        report: the dictionary of report.json.
        operating: from `decisions`.
    """
    mean, total = report["mean"], operating["total"] if operating else None
    if total and total["defects"]:
        headline = f"Finds {total['found']} of {total['defects']} defective parts"
        if total["normals"]:
            headline += f" and wrongly rejects {total['alarms']} of {total['normals']} good ones."
    elif mean["image_auroc"] is not None:
        headline = f"Ranks a defective part above a good one in {percent(mean['image_auroc'])}% of all pairs."
    else:
        headline = "No test category holds both good and defective parts, so no image metric is defined."
    ranked = [(metrics["image_auroc"], name) for name, metrics in report["classes"].items()]
    ranked = sorted((value, name) for value, name in ranked if value is not None)
    other = (report.get("baseline") or {}).get("mean", {})
    seven = (*IMAGE_METRICS, *PIXEL_METRICS)
    deltas = {name: delta for name in seven if (delta := _delta(mean[name], other.get(name)))["sign"]}
    return {
        "headline": headline,
        "weakest": ranked[0] if len(ranked) > 1 else None,
        "compared": len(deltas),
        "better": sum(delta["sign"] == "better" for delta in deltas.values()),
        "leads": [(" ".join(LABELS[name][:2]), deltas[name]) for name in ("image_auroc", "pixel_ap") if name in deltas],
    }


def tiles(report: Mapping[str, Any], operating: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The few large numbers below the headline; arguments as those of `verdict`."""
    mean, tiles = report["mean"], []
    for hits, trials, label in (("found", "defects", "Defects found"), ("alarms", "normals", "Good parts rejected")):
        if operating and (count := operating["total"][trials]):
            share = operating["total"][hits] / count
            tiles.append({"label": label, "value": share, "note": f"{operating['total'][hits]} of {count}", "sign": ""})
    for name in ("image_auroc", "pixel_ap", "aupro", "mad"):
        if mean[name] is None:
            continue
        delta = _delta(mean[name], (report.get("baseline") or {}).get("mean", {}).get(name))
        note = f"{delta['delta']} points" if delta["delta"] else "mean of categories"
        label = " ".join(LABELS[name][:2]) if name != "mad" else "mAD"
        tiles.append({"label": label, "value": mean[name], "note": note, "sign": delta["sign"]})
    return tiles
