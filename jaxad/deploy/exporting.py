"""`export`: a checkpoint as a program that runs without jaxad, or as a bundle."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np

from jaxad import metrics, parallel
from jaxad.deploy.bundle import write_bundle
from jaxad.deploy.description import describe
from jaxad.deploy.program import Program
from jaxad.deploy.stablehlo import PLATFORMS, to_stablehlo
from jaxad.errors import ConfigError
from jaxad.inference.card import write_card
from jaxad.inference.checkpoint import read_config, restore
from jaxad.inference.rechoose import read_decided
from jaxad.io.atomic import write_whole
from jaxad.io.digests import digest
from jaxad.io.locks import occupied
from jaxad.io.progress import Reporter

Format = Literal["stablehlo", "onnx", "bundle"]
DESCRIPTION, RUNNER = "detector.json", "run.py"
LARGEST = 1_900_000_000
"""Bytes of weights above which an ONNX file keeps them in a second one: no file of its format has 2 GB."""


def export(
    checkpoint: Path | str,
    out: Path | str,
    *,
    format: Format = "stablehlo",
    platforms: Sequence[str] = PLATFORMS,
    backbone: str | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Writes a detector so that it runs without jaxad, or a bundle that jaxad takes in place of its run.

    A program takes uint8 images [b h w 3] at the sizes of the detector's views, for any b, and gives scores [b] and
    smoothed maps [b s s]. Beside it lie detector.json, which describes it, and run.py, which judges image files.

    Args:
        checkpoint: a workdir (its newest whole step), or one step's folder.
        out: folder to write to.
        format: "stablehlo" (detector-PLATFORM.stablehlo and weights.npz, for jax), "onnx" (detector.onnx, for ONNX
            Runtime and others; extra `onnx`), or "bundle" (the checkpoint without optimizer state).
        platforms: of StableHLO, those to lower for: "cpu", "cuda", "tpu". Those that fail are left out with a note.
        backbone: as for `jaxad.restore`, where the checkpoint does not hold its pretrained networks.
        reporter: told of what differs and what is left out; None is silent.

    Returns:
        `out`.

    Raises:
        CheckpointError: no checkpoint, or a damaged one.
        ConfigError: the detector cannot be exported so, and why; or `out` cannot be written.
    """
    out, reporter = Path(out), reporter or Reporter(quiet=True)
    _check(format, platforms)
    if format == "bundle":
        return write_bundle(checkpoint, out)
    # ONNX is traced as for a CPU, wherever it is written: what its converter knows has 32 bits.
    auto = format == "onnx" and read_config(checkpoint).precision == "auto"
    changes: dict[str, Any] = {"precision": "float32"} if auto else {}
    restored = restore(checkpoint, backbone=backbone, **changes)
    reporter.warn(restored.notes)
    if restored.detector.tiling is not None or restored.detector.regions:
        raise ConfigError(
            f"{checkpoint}: judges tiles or a region of the images, which a program for whole images cannot; export a "
            "bundle (format = bundle), or a run fitted without --tile and --roi"
        )
    name = restored.threshold.protocol if restored.threshold else restored.meta["protocol"]
    program = Program.of(restored.detector, metrics.protocol(name))
    with occupied(out, "out"), _for_cpu() if format == "onnx" else nullcontext():
        # Whoever finds a description finds all that it names, and nothing of an earlier export.
        for name in (DESCRIPTION, *_FILES["stablehlo"], *_FILES["onnx"]):
            (out / name).unlink(missing_ok=True)
        if format == "stablehlo":
            runs_on = _write_stablehlo(program, out, platforms, reporter)
        else:
            runs_on = _write_onnx(program, out)
        files = {file.name: digest(file) for file in sorted(out.glob("*")) if file.name in _FILES[format]}
        write_whole(out / RUNNER, Path(__file__).with_name("runner.py").read_text())
        record = describe(program, restored, format, files, runs_on)
        write_whole(out / DESCRIPTION, json.dumps(record, indent=1))
        if restored.meta["complete"]:
            write_card(read_decided(restored.folder), out, use=f"python {RUNNER} IMAGE_OR_FOLDER...")
    return out


_FILES = {
    "stablehlo": ("weights.npz", *(f"detector-{platform}.stablehlo" for platform in PLATFORMS)),
    "onnx": ("detector.onnx", "weights.bin"),
}


def _check(format: str, platforms: Sequence[str]) -> None:
    if format not in get_args(Format):
        raise ConfigError(f"format = {format!r}: must be one of {', '.join(get_args(Format))}")
    if not platforms or set(platforms) - set(PLATFORMS):
        raise ConfigError(f"platforms = {tuple(platforms)}: must be some of {', '.join(PLATFORMS)}")
    if format == "onnx" and importlib.util.find_spec("onnx") is None:
        raise ConfigError("format = onnx: needs the extra `onnx`: pip install 'jaxad[onnx]'")


@contextmanager
def _for_cpu() -> Iterator[None]:
    """What is traced within is traced for a CPU."""
    cpu = jax.devices("cpu")[:1]
    mesh = parallel.make_mesh(devices=cpu).abstract_mesh
    with jax.default_device(cpu[0]), jax.sharding.use_abstract_mesh(mesh):
        yield


def _write_stablehlo(program: Program, out: Path, platforms: Sequence[str], reporter: Reporter) -> list[str]:
    programs, refused = to_stablehlo(program, platforms)
    reporter.warn([f"left out for {platform}: {fault}" for platform, fault in refused.items()])
    weights, arrays = io.BytesIO(), {path: np.asarray(array) for path, array in program.arrays.items()}
    np.savez(weights, allow_pickle=False, **arrays)
    write_whole(out / "weights.npz", weights.getvalue())
    for platform, content in programs.items():
        write_whole(out / f"detector-{platform}.stablehlo", content)
    return list(programs)


def _write_onnx(program: Program, out: Path) -> list[str]:
    import onnx

    from jaxad.deploy.onnx_conversion import ConversionError, to_onnx

    names = [one.name for one in program.inputs]

    def one(*given: Any) -> tuple[jax.Array, jax.Array]:
        return program.one(program.arrays, dict(zip(names, given, strict=True)))

    try:
        model = to_onnx(one, program.inputs, ("score", "map"))
    except ConversionError as error:
        raise ConfigError(f"{program.detector.title} {error}\nExport it as StableHLO (format = stablehlo)") from error
    if sum(len(constant.raw_data) for constant in model.graph.initializer) > LARGEST:
        onnx.save(model, out / "detector.onnx", save_as_external_data=True, location="weights.bin")
    else:
        write_whole(out / "detector.onnx", model.SerializeToString())
    return ["cpu", "cuda"]
