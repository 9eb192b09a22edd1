"""report.json and one self-contained HTML page, readable by an inspector and citable by a researcher."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.data.layout.results import REPORT
from jaxad.inference.heat import heat
from jaxad.inference.results import Evaluation, notes_of
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.io.text import visible
from jaxad.metrics import LABELS
from jaxad.report import figures, image_list, mistakes, operating, summary
from jaxad.report.schema import validate_report
from jaxad.report.templates import rendered


def write_report(out_dir: str | Path, report: dict[str, Any], *, evaluation: Evaluation | None = None) -> Path:
    """Writes `report.json`, `report.html` and, of the images evaluated, `images.csv`, each whole or not at all.

    The page needs no network and no other file; it stays below 8 MB by making pictures smaller, then fewer.

    Args:
        out_dir: folder; made if missing.
        report: the dictionary of report.json, as `jaxad.report.schema.validate_report` describes it.
        evaluation: curves, pictures and features for the page; sections without input are left out.

    Returns:
        The path of report.html.

    Raises:
        ReportError: the dictionary lacks keys or has values of a wrong type; nothing is written then.
    """
    shown, out_dir = page(report, evaluation), Path(out_dir)
    write_whole(out_dir / REPORT, json_text(report, indent=2) + "\n")
    if evaluation is not None and evaluation.decisions:
        write_whole(out_dir / image_list.NAME, image_list.csv_text(evaluation.decisions, evaluation.baseline_decisions))
    return write_whole(out_dir / "report.html", shown)


def page(report: dict[str, Any], evaluation: Evaluation | None = None) -> str:
    """The page alone, as `write_report` writes it.

    Raises:
        ReportError: as of `write_report`.
    """
    validate_report(report)
    return visible(_page(report, evaluation or Evaluation()), lines=True)


def _page(report: dict[str, Any], evaluation: Evaluation) -> str:
    baseline = report.get("baseline")
    detector = evaluation.system or report["config"].get("system") or "Anomaly detector"
    decided = summary.decisions(report)
    thresholds = {name: row["threshold"] for name, row in report.get("decisions", {}).get("categories", {}).items()}
    named = evaluation.baseline or (baseline or {}).get("config", {}).get("system") or "baseline"
    values = {
        "report": report,
        "evaluation": evaluation,
        "detector": detector,
        "notes": [*notes_of(report), *report["data"].get("notes", [])],
        "baseline": named if baseline else None,
        "verdict": summary.verdict(report, decided),
        "tiles": summary.tiles(report, decided),
        "table": summary.table(report),
        "decided": decided,
        "others": summary.decisions(baseline) if baseline else None,
        "mistakes": mistakes.sections(evaluation),
        "alternatives": operating.alternatives(evaluation.decisions, thresholds) if evaluation.decisions else [],
        "slider": operating.slider(evaluation.decisions, thresholds),
        "curves": figures.curves(report, evaluation),
        "training": figures.training(report),
        "gallery": figures.gallery(report, evaluation),
        "stops": [f"rgb({r} {g} {b})" for r, g, b in heat(np.linspace(0, 1, 9)[None], low=0, high=1)[0]],
        "prototypes": figures.prototypes(evaluation.prototypes),
        "methods": figures.methods(evaluation.methods),
        "beside": figures.beside(evaluation.sheet),
        "tsne": figures.tsne(evaluation.tsne),
        "count_names": list(dict.fromkeys(name for counts in report["data"]["counts"].values() for name in counts)),
        "settings": _settings(report["config"]),
        "baseline_settings": _settings(baseline.get("config", {})) if baseline else [],
    }
    how: dict[str, Any] = {"filters": {"percent": summary.percent}, "globals": {"labels": LABELS}}
    return rendered("jaxad.report", "template.html", values, **how)


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
