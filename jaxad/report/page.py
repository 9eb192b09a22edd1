"""report.json and one self-contained HTML page, readable by an inspector and citable by a researcher (DESIGN 6)."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from scipy.stats import binomtest

from jaxad.inference.results import Case, Curves, Evaluation, PrototypeFigure, TsneInput, choose_cases, notes_of
from jaxad.io.atomic import write_whole
from jaxad.metrics import IMAGE_METRICS, LABELS, METRICS, PIXEL_METRICS
from jaxad.report import figures as figures
from jaxad.report.images import heat
from jaxad.report.schema import validate_report

__all__ = [
    "Case",
    "Curves",
    "Evaluation",
    "PrototypeFigure",
    "TsneInput",
    "choose_cases",
    "validate_report",
    "write_report",
]


def write_report(out_dir: str | Path, report: dict[str, Any], *, evaluation: Evaluation | None = None) -> Path:
    """Write `report.json` and `report.html` into a folder, each whole or not at all.

    The page needs no network and no other file; it stays below 8 MB by making pictures smaller, then fewer.

    Args:
        out_dir: folder; made if missing.
        report: the dictionary of report.json, as `validate_report` describes it.
        evaluation: curves, pictures and features for the page; sections without input are left out.

    Returns:
        The path of report.html.

    Raises:
        ReportError: the dictionary lacks keys or has values of a wrong type; nothing is written then.
    """
    validate_report(report)
    page = _page(report, evaluation or Evaluation())
    out_dir = Path(out_dir)
    write_whole(out_dir / "report.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    return write_whole(out_dir / "report.html", page)


def _page(report: dict[str, Any], evaluation: Evaluation) -> str:
    template = importlib.resources.files("jaxad.report").joinpath("template.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = _percent
    baseline = report.get("baseline")
    system = evaluation.system or report["config"].get("system") or "Anomaly detector"
    table, operating = _table(report), _operating(evaluation)
    return environment.from_string(template, {"labels": LABELS}).render(
        report=report,
        evaluation=evaluation,
        system=system,
        notes=[*notes_of(report), *report["data"].get("notes", [])],
        baseline=(evaluation.baseline or baseline.get("config", {}).get("system") or "baseline") if baseline else None,
        verdict=_verdict(report, operating),
        tiles=_tiles(report, operating),
        table=table,
        operating=operating,
        curves=figures.curves(report, evaluation),
        gallery=figures.gallery(report, evaluation),
        stops=[f"rgb({r} {g} {b})" for r, g, b in heat(np.linspace(0, 1, 9)[None], low=0, high=1)[0]],
        prototypes=figures.prototypes(evaluation.prototypes),
        tsne=figures.tsne(evaluation.tsne),
        count_names=list(dict.fromkeys(name for counts in report["data"]["counts"].values() for name in counts)),
        settings=_settings(report["config"]),
        baseline_settings=_settings(baseline.get("config", {})) if baseline else [],
    )


def _percent(value: float | None, digits: int = 1) -> str:
    return "—" if value is None else f"{100 * value:.{digits}f}"


def _metrics_shown(report: Mapping[str, Any]) -> list[str]:
    """All metrics, without the pixel ones where no category has any."""
    classes = report["classes"].values()
    pixel = any(metrics[name] is not None for metrics in classes for name in PIXEL_METRICS)
    return list(METRICS) if pixel else [*IMAGE_METRICS, "mad"]


def _table(report: Mapping[str, Any]) -> dict[str, Any]:
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


def _operating(evaluation: Evaluation) -> dict[str, Any] | None:
    """How many defective images the thresholds find and how many normal ones they reject, by category and in all."""
    rows = []
    for category, threshold in evaluation.thresholds.items():
        if category not in evaluation.scores:
            continue
        scores, labels = map(np.asarray, evaluation.scores[category])
        called, defective = scores > threshold, labels.astype(bool)
        counts = {
            "found": int((called & defective).sum()),
            "defects": int(defective.sum()),
            "alarms": int((called & ~defective).sum()),
            "normals": int((~defective).sum()),
        }
        rows.append({"category": category, "threshold": float(threshold), **counts})
    if not rows:
        return None
    names = ("found", "defects", "alarms", "normals")
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in names}
    for row in (*rows, total):
        row["found_range"] = _interval(row["found"], row["defects"])
        row["alarm_range"] = _interval(row["alarms"], row["normals"])
    return {"rows": rows, "total": total}


def _interval(hits: int, trials: int) -> tuple[float, float] | None:
    """95 % Wilson interval of a rate."""
    if trials == 0:
        return None
    low, high = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def _verdict(report: Mapping[str, Any], operating: dict[str, Any] | None) -> dict[str, Any]:
    mean, total = report["mean"], operating["total"] if operating else None
    if total and total["defects"]:
        headline = f"Finds {total['found']} of {total['defects']} defective parts"
        if total["normals"]:
            headline += f" and wrongly rejects {total['alarms']} of {total['normals']} good ones."
    elif mean["image_auroc"] is not None:
        headline = f"Ranks a defective part above a good one in {_percent(mean['image_auroc'])} % of all pairs."
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


def _tiles(report: Mapping[str, Any], operating: dict[str, Any] | None) -> list[dict[str, Any]]:
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


def _settings(config: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The config as (group, [(name, value)]); plain values at the top form the first group."""

    def flat(values: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
        for name, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{at}{name}.")
            else:
                yield f"{at}{name}", _setting(value)

    plain = {name: value for name, value in config.items() if not isinstance(value, dict)}
    groups = {"run": plain} if plain else {}
    groups |= {name: value for name, value in config.items() if name not in plain}
    return [(name, list(flat(values))) for name, values in groups.items()]


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)
