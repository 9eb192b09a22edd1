"""Makes accelerator-plans.json: what jaxad's programs take of accelerators, row by row.

    python docs/benchmarks/accelerator_plans.py            # compile what is missing, then write the file
    python docs/benchmarks/accelerator_plans.py --list     # the commands, and which are done
    python docs/benchmarks/accelerator_plans.py --only v5e # those that hold the word

Every command takes minutes. What it prints is kept in accelerator-plans.jsonl, a line for each row, so that an
interrupted run goes on where it was; later lines replace earlier ones of the same program. Lines with "earlier" were
compiled from programs that have changed since, and are compiled anew. Needs the extras `tpu` and `cuda12`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE, ROWS = HERE / "accelerator-plans.json", HERE / "accelerator-plans.jsonl"
CHIPS = ("v5e:1x1", "v5e:2x4", "v5p:2x2x1", "h100:1", "h100:8", "h200:1", "a100:1")
ONE = ("v5e:1x1", "h100:1", "h200:1", "a100:1")
"""Single chips, for predictions that need no more."""
SEVERAL = {"v5e:2x4": 8, "v5p:2x2x1": 4, "h100:8": 8}
"""The others, and how many they are."""
SIZES = ("--depth 12 --remat", "--image-size 560", "--depth 12 --image-size 560 --remat", "--backbone dino-base-8")
DEFAULTS = ("autoencoder", "captions --batch-size 4", "training --micro-batches 4", "prediction --batch-size 16")
"""VLMDiff's commands as its guide has them, on one card of 24 GB."""
COLUMNS = ["program", "settings", "device", "chips", "images at once", "GB per chip", "at the peak", "fits", "TFLOP"]
COLUMNS += ["GB moved", "operations per byte", "least ms", "bound by", "images/s at most", "largest float32"]
COLUMNS += ["kernels", "collectives"]


def commands() -> list[str]:
    """All command lines, without `jaxad bench`."""
    # The largest step that fits is looked for, which compiles four or more.
    found = [f"dpdiff --topology {chip} --largest" for chip in CHIPS]
    found += [f"dpdiff --topology {chip} {size}" for chip in CHIPS for size in SIZES]
    # The card that its paper used.
    found += [f"dpdiff --topology rtx4090:1{size}" for size in (" --largest", *(f" {size}" for size in SIZES))]
    # What computing activations again spares.
    found += ["dpdiff --topology h100:1 --depth 12 --image-size 560"]
    # Its step does not fit without.
    found += ["dpdiff --topology v5e:1x1 --backbone dino-base-8 --remat"]
    vlmdiff = "vlmdiff --dtype bfloat16 --topology"
    trained = (
        ("h100:1", "1 4 12"),
        ("h100:8", "4"),
        ("v5e:2x4", "1"),
        ("h200:1", "4"),
        ("a100:1", "4"),
        ("v5p:2x2x1", "4"),
    )
    found += [f"{vlmdiff} {chip} --programs training --micro-batches {batches}" for chip, batches in trained]
    found += [f"{vlmdiff} h100:1 --programs training --micro-batches 1 4 --first-moment bfloat16"]
    found += ["vlmdiff --topology h100:1 --programs autoencoder"]
    found += [f"{vlmdiff} {chip} --programs prediction --batch-size 32" for chip in ONE]
    found += [f"{vlmdiff} {chip} --programs prediction --batch-size 4" for chip in ("h100:8", "v5e:2x4")]
    found += [f"{vlmdiff} v5p:2x2x1 --programs prediction --batch-size 8"]
    found += [f"{vlmdiff} rtx4090:1 --programs {program}" for program in DEFAULTS]
    found += [f"clipfusion --topology {chip} --shots 0 4" for chip in ONE]
    return found + [f"clipfusion --topology {chip} --shots 0 4 --batch-size {n}" for chip, n in SEVERAL.items()]


def done() -> dict[str, list[dict]]:
    """Rows that were compiled, by command."""
    lines = ROWS.read_text().splitlines() if ROWS.is_file() else []
    found: dict[str, dict[str, dict]] = {}
    for line in map(json.loads, lines):
        found.setdefault(line["command"], {})[line["row"]["program"]] = line["row"]
    return {command: list(rows.values()) for command, rows in found.items()}


def is_open(rows: list[dict]) -> bool:
    """Whether a command is to be compiled yet, or anew."""
    return not rows or any(row.get("earlier") for row in rows)


def compile_rows(command: str) -> bool:
    """Runs a command and keeps its rows if it ends well; whether it did."""
    words = [sys.executable, "-m", "jaxad", "bench", *shlex.split(command)]
    ended = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if ended.returncode == 0:
        with ROWS.open("a") as file:
            file.writelines(json.dumps({"command": command, "row": json.loads(line)}) + "\n" for line in _rows(ended))
    return ended.returncode == 0


def _rows(ended: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in ended.stdout.splitlines() if line.startswith("{")]


def cells(command: str, row: dict) -> list:
    """A row of the table."""
    detector = command.split()[0]
    named = [f"{row[name]}" for name in ("backbone", "size") if name in row]
    named += [f"{name.replace('_', ' ')} {row[name]}" for name in ("depth", "image_size") if name in row]
    named += ["first moment bfloat16"] if row.get("first_moment") == "bfloat16" else []
    named += ["activations computed again"] if row.get("remat") else []
    named += ["**earlier**"] if row.get("earlier") else []
    first = [f"{detector}, {row['program']}", ", ".join(named), row["device"], row["devices"], row["batch_size"]]
    first += [round(row["gb"].get(name) or 0, 1) or "" for name in ("total", "peak")] + ["yes" if row["fits"] else "no"]
    if "tflop" not in row:
        return first + [""] * (len(COLUMNS) - len(first))
    kernels = "; ".join(f"{name} x {number}" for name, number in row["kernels"].items())
    moved = "; ".join(
        f"{name} x {counted['runs']}, {counted['bytes'] / 1e9:.2g} GB" for name, counted in row["collectives"].items()
    )
    numbers = [
        round(row["tflop"], 2),
        round(row["traffic_gb"], 1),
        round(1e3 * row["tflop"] / row["traffic_gb"]),
        "",
        "",
        "",
    ]
    if row["bound"] is not None:
        rate = row["images_per_second"]
        numbers[3:] = [round(row["roofline_ms"], 1), row["bound"], round(rate) if rate >= 10 else round(rate, 2)]
    return [*first, *numbers, row["largest_float32"], kernels, moved]


def write(found: dict[str, list[dict]]) -> None:
    """Puts the rows into the page, whose words stay as they are."""
    page = json.loads(PAGE.read_text())
    order = [command for command in commands() if command in found]
    page["command"] = [f"jaxad bench {command}" for command in order]
    page["date"] = datetime.date.today().isoformat()
    page["tables"] = [{"columns": COLUMNS, "rows": [cells(c, row) for c in order for row in found[c]]}]
    PAGE.write_text(json.dumps(page, indent=2) + "\n")


def main() -> int:
    """Compiles what is missing and writes the page; status 1 where a command failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    chosen, found = [command for command in commands() if options.only in command], done()
    if options.list:
        print("\n".join(f"{'open' if is_open(found.get(command, [])) else 'done'}  {command}" for command in chosen))
        return 0
    failed = [command for command in chosen if is_open(found.get(command, [])) and not compile_rows(command)]
    if found := done():
        write(found)
    print("\n".join(f"failed: {command}" for command in failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
