r"""DPDiff-AD, Figures 3, 4 and C1 to C6: anomaly maps on defective images, alone or beside other detectors.

Command (checkpoints of a table's runs, or of `jaxad fit`):
    python -m experiments.dpdiff.figure3 --data mvtec_ad --out figure4.png \
        --checkpoints runs/uniad runs/hvq-trans runs/dinomaly runs/benchmarks/mvtec_ad/mvtec_ad/seed-0

Expected: maps of DPDiff-AD that keep to the defect; on Real-IAD Variety those of the others do not. Which images the
paper shows is not said: the first defective ones of each category are taken.
"""

from __future__ import annotations

import tyro

from experiments.sheets import SheetOptions, main

if __name__ == "__main__":
    print(main(tyro.cli(SheetOptions, description=__doc__)))
