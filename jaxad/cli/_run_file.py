"""`jaxad fit --config FILE`: what a file says of one run or several, and everything that is wrong with it at once.

A file is the config.json of a run, or JSON or Python of the same form: an object with the keys of `KEYS`. The object
`data` holds flags of `jaxad fit` that say which images are taken and how, by their names.
"""

from __future__ import annotations

import dataclasses
import runpy
import traceback
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxad.cli._reading import one_of
from jaxad.config import to_json
from jaxad.config.fields import read_fields, unknown_name
from jaxad.config.training import NAMES, up_to_date
from jaxad.errors import CheckpointError, ConfigError, JaxadError
from jaxad.io.untrusted import nested_names, path_fault, told

KEYS = ("system", "preset", "config", "train", "protocol", "false_alarm", "data", "from", "weights")
"""Detector, preset of what is not given, settings of detector and training, protocol and false-alarm rate of the
threshold, images, the run of a warm start, by its path or as a run records it; the hashes of the weights are those that
the run had, and are not asked for again."""
IMAGES = (
    *("data", "data_dir", "categories", *NAMES, "on_bad"),
    *("holdout", "tile", "overlap", "tiles_per_image", "roi"),
)
"""Flags in `data`, besides those that the detector asks for."""


@dataclass(frozen=True)
class Given:
    """What a file says of a run.

    Attributes:
        detector: its class.
        preset: for what is not given; None for the first one.
        model, train: fields of the settings; `train` is empty for what is not trained.
        flags, options: fields of the command, and of what the detector asks for.
    """

    detector: Any
    preset: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def read_runs(file: Path, detector: str | None, command: type) -> dict[str, Given]:
    """The runs of a file by name; that of a file with one has the name "".

    Args:
        file: .json, or .py with a function `config()` of one run, or `configs()` of several: {name: config}.
        detector: the name that the words give, None where they give none.
        command: the class whose fields are the flags.

    Raises:
        ConfigError: no such file, or everything that is wrong in it, each with its key and what to do.
    """
    # It needs numpy, which `jaxad --help` does without.
    from jaxad.io.json_files import read_object

    values = _of_python(file) if file.suffix == ".py" else {"": read_object(file, error=ConfigError)}
    problems, runs = [], {}
    for name, one in values.items():
        given, wrong = _read(one, detector, command)
        problems += [f"{name}: {line}" if name else line for line in wrong]
        runs[name] = given
    if problems:
        raise ConfigError("\n  ".join([f"{file} cannot be used:", *problems]))
    return runs


def _of_python(file: Path) -> dict[str, Any]:
    names = _run(file, lambda: runpy.run_path(str(file)), "its code")
    given = [name for name in ("config", "configs") if callable(names.get(name))]
    if len(given) != 1:
        raise ConfigError(f"{file}: needs one function, config() of one run or configs() of several by name")
    values = _run(file, names[given[0]], f"{given[0]}()")
    if given == ["config"]:
        return {"": values}
    if not isinstance(values, Mapping) or not values:
        raise ConfigError(f"{file}: configs() returns {_kind(values)}; it must return {{name: config}}, one or more")
    if wrong := [f"{n!r} ({fault})" for n in values if (fault := "no text" if not isinstance(n, str) else _fault(n))]:
        raise ConfigError(f"{file}: configs(): names become folders, which these cannot: {', '.join(wrong)}")
    if nested := nested_names(values):
        raise ConfigError(f"{file}: configs(): names lie in the folders of others: {', '.join(nested)}")
    return dict(values)


def _fault(name: str) -> str:
    return path_fault(name) if name else "empty"


def _run(file: Path, do: Any, what: str) -> Any:
    try:
        return do()
    except JaxadError:
        raise
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file; give the config.json of a run, or a Python file") from error
    except Exception as error:
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = getattr(error, "lineno", None) or (own[-1] if own else None)
        at = f", line {line}" if line else ""
        raise ConfigError(f"{file}{at}: {what} raises {told(error)}; mend it") from error


def _read(values: Any, detector: str | None, command: type) -> tuple[Any, list[str]]:
    """What an object says, and what is wrong with it; nothing is to be made of the former where something is."""
    from jaxad.config import TrainConfig
    from jaxad.detector import Trainable, detectors

    if not isinstance(values, Mapping):
        return None, [f"is {_kind(values)}; must be an object with {', '.join(KEYS[:-1])}"]
    problems = [unknown_name(str(key), "a config", KEYS) for key in values if key not in KEYS]
    system, train = values.get("system", detector), values.get("train")
    if detector not in (None, system):
        problems.append(f"system = {system!r}: the command names {detector}; leave that out, or give another file")
    try:
        cls = detectors.get(str(system))
    except ConfigError as error:
        hint = "system: is missing; name a detector there or before --config" if system is None else f"system: {error}"
        return None, [*problems, hint]
    model, wrong = _settings(cls.config_class, values.get("config"), "config")
    trains = issubclass(cls, Trainable)
    if not trains and train is not None:
        wrong.append(f"train: {system} is not trained; leave it out, or give null")
    train = up_to_date(train) if isinstance(train, Mapping) else train
    training, more = _settings(TrainConfig, train, "train") if trains else ({}, [])
    flags, options, others = _images(values.get("data"), command, cls)
    presets = cls.config_class.presets()
    preset = values.get("preset", flags.pop("preset", None))
    if preset is not None and preset not in presets:
        others.append(f"preset = {preset!r}: must be one of {', '.join(presets)}")
    begin, faulty = _begun(values.get("from"))
    top, tops = read_fields(
        _typed(command), {name: values[name] for name in ("protocol", "false_alarm") if name in values}
    )
    given = Given(cls, preset, model, training, {**flags, **begin, **top}, options)
    return given, [*problems, *wrong, *more, *others, *faulty, *tops]


def _begun(value: Any) -> tuple[dict[str, Any], list[str]]:
    """The run of a warm start, as a flag of the command: of what a run recorded, the step that it took."""
    from jaxad.inference.steps import FOLDER, open_step

    record = value if isinstance(value, Mapping) else {"run": value}
    run = record.get("run")
    if value is None:
        return {}, []
    if not isinstance(run, str | Path):
        return {}, [f"from: is {_kind(value)}; must be the folder of a run, or null"]
    place = Path(run)
    if "step" in record and (place / FOLDER).is_dir():
        place = place / FOLDER / str(record["step"])
    if "sha256" in record:
        # What cannot be read is told of once it is needed.
        with suppress(CheckpointError):
            if open_step(place).manifest.seal != record["sha256"]:
                return {}, [f"from: {place} is another step than the one recorded; give the folder alone to take it"]
    return {"warm_start": place}, []


def _settings(cls: Any, values: Any, key: str) -> tuple[dict[str, Any], list[str]]:
    """Fields of a config from its JSON values, or from a config."""
    if values is None:
        return {}, []
    if isinstance(values, cls):
        return {f.name: getattr(values, f.name) for f in dataclasses.fields(cls)}, []
    if not isinstance(values, Mapping):
        return {}, [f"{key}: is {_kind(values)}; must be an object of settings, or a {cls.__name__}"]
    given, problems = read_fields(cls, _plain(values))
    return given, [f"{key}.{problem}" for problem in problems]


def _images(values: Any, command: type, detector: Any) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Flags and options in `data`."""
    from jaxad.data.fit_options import FitOptions

    if values is None:
        return {}, {}, []
    if not isinstance(values, Mapping):
        return {}, {}, [f'data: is {_kind(values)}; must be an object such as {{"data": "folder:parts"}}']
    options = detector.fit_options or FitOptions
    own = {f.name for f in dataclasses.fields(options)}
    values = _plain(values)
    if "sha256" in values:
        # What a run wrote says more than what it was asked for.
        values = _recorded(values, {*IMAGES, *own, "preset"})
    flags, wrong = read_fields(_typed(command), {n: v for n, v in values.items() if n in IMAGES})
    asked, more = read_fields(options, {n: v for n, v in values.items() if n in own})
    known = (*IMAGES, *sorted(own), "preset")
    wrong += [unknown_name(name, "data", known) for name in values if name not in known]
    flags |= {"preset": values["preset"]} if "preset" in values else {}
    return flags, asked, [f"data.{line}" for line in (*wrong, *more)]


def _recorded(values: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """What a run's record says of its flags."""
    kept = {name: value for name, value in values.items() if name in known}
    if isinstance(tiles := values.get("tiles"), dict):
        every = tiles.get("per_image") == "all"
        kept |= {"tile": tiles.get("side"), "overlap": tiles.get("overlap")}
        kept |= {} if every else {"tiles_per_image": tiles.get("per_image")}
    if isinstance(captions := kept.get("captions"), dict):
        kept["captions"] = captions.get("source")
    return kept


def _typed(command: type) -> type:
    """A dataclass of the flags of a file, with the types of the command's."""
    from jaxad.metrics.protocols import protocol_names

    hints = typing.get_type_hints(command) | {"protocol": one_of(protocol_names())}
    names = (*IMAGES, "protocol", "false_alarm")
    return dataclasses.make_dataclass("Flags", [(name, hints[name]) for name in names])


def _plain(value: Any) -> Any:
    """Values of Python as those that JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return str(value) if isinstance(value, Path) else value


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", type(None): "null"}
    return kinds.get(type(value), f"of type {type(value).__name__}")
