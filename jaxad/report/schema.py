"""The format of report.json as a JSON Schema, and the check that a report has it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from jaxad.errors import ReportError
from jaxad.io.untrusted import reading
from jaxad.metrics.names import METRICS

Schema = dict[str, Any]


def validate_report(report: Mapping[str, Any]) -> None:
    """Checks a report against `SCHEMA`.

    Required: `protocol` (name), `config`, `environment` {`versions`, `device`, `seconds`, `images_per_second`, and
    `timed`, what the rate counts, unless it is null}, `data` {`source`, `counts` {category: {name: number}}, `licence`,
    `bad_files` [{`file`, `kind`, `detail`}]}, `mean`, `classes`. Optional: `notes` [text] on the results,
    `protocol_description`, `environment.timings` {stage: seconds}, `data.notes` [text], `std` beside any metrics,
    `pixel_error_bound` {metric: largest effect of binning} in a class, `baseline` {`mean`, `classes`, and any of the
    others}, `decisions` {`total` {`found`, `missed`, `false_alarms`, `passed`}, `categories` {category: the same,
    `threshold`, `holdout`, `false_alarm`, `supported`, `defects` {defect: {`found`, `missed`}}}}
    (`jaxad.inference.decisions.counted`), `training` {"holdout" or "test": {`steps`, `values` {name: one for each
    step}}}, evaluations on the way. Further keys are allowed. Every value must be one of JSON's, every number finite.

    Raises:
        ReportError: lists everything that is missing, of the wrong type or out of range, each with its path.
    """
    # The check follows what nests, and compares keys, which need not be text.
    with reading(lambda said: ReportError(f"the report does not have its format: {said}")):
        errors = sorted(_validator.iter_errors(report), key=lambda error: error.json_path)
    if errors:
        problems = dict.fromkeys(f"{error.json_path}: {_message(error)}" for error in errors)
        raise ReportError("\n".join(["the report does not have its format:", *(f"  {line}" for line in problems)]))


def _object(*required: str, others: Schema | None = None, **fields: Schema) -> Schema:
    """An object with these fields, and further ones of the type `others`, anything that JSON can hold by default."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": others or {"$ref": "#/$defs/anything"},
        "propertyNames": {"type": "string"},
    }


def _run(*required: str, environment: Sequence[str] = (), data: Sequence[str] = ()) -> Schema:
    """What is said of one detector: the report as a whole, or its baseline."""
    bad_file = _object("file", "kind", "detail", file=_TEXT, kind=_TEXT, detail=_TEXT)
    timed = {
        "if": {"properties": {"images_per_second": {"type": "number"}}, "required": ["images_per_second"]},
        "then": {
            "required": ["timed"],
            "properties": {"timed": {"minLength": 1}},
            "errorMessage": "'timed' is required; it says what images_per_second counts",
        },
    }
    return _object(
        *required,
        "mean",
        "classes",
        protocol=_TEXT,
        protocol_description=_TEXT,
        config=_object(),
        environment=_object(
            *environment,
            versions=_object(others=_TEXT),
            device=_TEXT,
            seconds=_MAYBE_NUMBER,
            images_per_second=_MAYBE_NUMBER,
            timed=_TEXT,
            timings=_object(others=_NUMBER),
        )
        | timed,
        data=_object(
            *data,
            source=_TEXT,
            counts=_object(others=_object(others=_COUNT)),
            licence={"type": ["string", "null"]},
            bad_files={"type": "array", "items": bad_file},
            notes=_TEXTS,
        ),
        notes=_TEXTS,
        decisions=_object("total", "categories", total=_VERDICTS, categories=_object(others=_DECIDED)),
        mean=_object(*METRICS, **_METRICS),
        classes=_object(others=_CLASS) | {"minProperties": 1},
    )


def _reason(metric: str) -> Schema:
    """A metric that is null has a reason in `undefined`; one that is not has none."""
    needed = {
        "required": [metric],
        "properties": {metric: {"minLength": 1}},
        "errorMessage": f"{metric!r} is required; it says why {metric} is null",
    }
    return {
        "if": {"properties": {metric: {"type": "null"}}, "required": [metric]},
        "then": {"properties": {"undefined": needed}},
        "else": {"properties": {"undefined": {"properties": {metric: {"not": {}, "errorMessage": _DEFINED}}}}},
    }


def _message(error: ValidationError) -> str:
    return error.schema.get("errorMessage", error.message) if isinstance(error.schema, dict) else error.message


_DEFINED = "must be left out where the metric is not null"
_TEXT, _NUMBER, _COUNT = {"type": "string"}, {"type": "number"}, {"type": "integer"}
_TEXTS, _MAYBE_NUMBER = {"type": "array", "items": _TEXT}, {"type": ["number", "null"]}
_COLUMN = {"type": "array", "items": _MAYBE_NUMBER}
# Rounding may carry a metric past its ends.
_SHARE = _MAYBE_NUMBER | {"minimum": -1e-9, "maximum": 1 + 1e-9}
_METRICS = dict.fromkeys(METRICS, _SHARE) | {"std": _object(others=_MAYBE_NUMBER), "undefined": _object(others=_TEXT)}
_COUNTED = {"n_normal": _COUNT, "n_anomalous": _COUNT, "pixel_error_bound": _object(others=_NUMBER)}
_CLASS = _object(*METRICS, "n_normal", "n_anomalous", "undefined", **_METRICS, **_COUNTED)
_CLASS |= {"allOf": [_reason(metric) for metric in METRICS]}
_FOUND = {"found": _COUNT, "missed": _COUNT}
_ALL = _FOUND | {"false_alarms": _COUNT, "passed": _COUNT}
_VERDICTS = _object(*_ALL, **_ALL)
_DECIDED = _object(
    *_ALL,
    "threshold",
    "holdout",
    "false_alarm",
    "supported",
    "defects",
    **_ALL,
    threshold=_NUMBER,
    holdout=_COUNT,
    false_alarm=_SHARE,
    supported=_SHARE,
    defects=_object(others=_object(*_FOUND, **_FOUND)),
)
_ANYTHING = {
    "type": ["object", "array", "string", "number", "boolean", "null"],
    "additionalProperties": {"$ref": "#/$defs/anything"},
    "propertyNames": {"type": "string"},
    "items": {"$ref": "#/$defs/anything"},
}


def _report() -> Schema:
    report = _run(
        "protocol",
        "config",
        "environment",
        "data",
        environment=("versions", "device", "seconds", "images_per_second"),
        data=("source", "counts", "licence", "bad_files"),
    )
    columns = {"steps": {"type": "array", "items": _COUNT}, "values": _object(others=_COLUMN)}
    report["properties"]["training"] = _object(others=_object(*columns, **columns, images=_COUNT, of=_COUNT))
    report["properties"]["baseline"] = _run() | {"type": ["object", "null"]}
    return report | {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": {"anything": _ANYTHING}}


SCHEMA: Schema = _report()
"""JSON Schema (draft 2020-12) of report.json; "errorMessage" is what to say where its own words would not help."""

# In Python only these are what JSON calls so: no numpy scalar, and no number that is not finite.
_types = Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "number": lambda _, value: type(value) is int or (isinstance(value, float) and math.isfinite(value)),
        "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
        "array": lambda _, value: isinstance(value, list | tuple),
    }
)
_validator = extend(Draft202012Validator, type_checker=_types)(SCHEMA)
