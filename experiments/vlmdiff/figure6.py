r"""VLMDiff, Figures 6 to 13: anomaly maps of diffusion-based detectors on Real-IAD and COCO-AD side by side.

Command (checkpoints of runs of `table15.py` or `table14.py`, or of `jaxad fit`):
    python -m experiments.vlmdiff.figure6 --data real_iad --out figure6.png --protocol diad --checkpoints \
        runs/vlmdiff/real_iad/diad-RUN/seed-1 runs/vlmdiff/real_iad/vlmdiff-internvl-RUN/seed-1
Figures 12 and 13 (COCO-AD, split by split; captions at test time too):
    python -m experiments.vlmdiff.figure6 --data coco_ad --out figure12.png --protocol diad --images 3 \
        --captions /data/captions --checkpoints runs/vlmdiff/coco_ad/vlmdiff-internvl-RUN/seed-1

Expected: maps of VLMDiff that keep nearer to the defect than DiAD's. Figures 6 to 11 show two images of each category
of Real-IAD, 12 and 13 three of each split; which ones is not said: the first defective ones are taken. TransFusion and
other detectors of these figures are not built here.
"""

from __future__ import annotations

import tyro

from experiments.sheets import SheetOptions, main

if __name__ == "__main__":
    print(main(tyro.cli(SheetOptions, description=__doc__)))
