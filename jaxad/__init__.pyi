# The public names and their places, for type checkers and for `__init__.py`, which imports each when it is first used.

from . import data as data
from .config import CLIPFusionConfig as CLIPFusionConfig
from .config import DataConfig as DataConfig
from .config import DinomalyConfig as DinomalyConfig
from .config import DPDiffConfig as DPDiffConfig
from .config import LinearConfig as LinearConfig
from .config import PaDiMConfig as PaDiMConfig
from .config import PatchBankConfig as PatchBankConfig
from .config import TrainConfig as TrainConfig
from .config import UniADConfig as UniADConfig
from .config import VLMDiffConfig as VLMDiffConfig
from .detector import Detector as Detector
from .detector import InputSpec as InputSpec
from .detector import PatchDetector as PatchDetector
from .detector import Remembers as Remembers
from .detector import Trainable as Trainable
from .detector import register as register
from .detectors.clipfusion import CLIPFusion as CLIPFusion
from .detectors.dinomaly import Dinomaly as Dinomaly
from .detectors.dpdiff import DPDiff as DPDiff
from .detectors.linear import LinearDenoiser as LinearDenoiser
from .detectors.padim import PaDiM as PaDiM
from .detectors.patch_bank import PatchBank as PatchBank
from .detectors.uniad import UniAD as UniAD
from .detectors.vlmdiff import VLMDiff as VLMDiff
from .errors import JaxadError as JaxadError
from .inference.calibrate import choose_threshold as choose_threshold
from .inference.checkpoint import restore as restore
from .inference.evaluation import evaluate as evaluate
from .inference.prediction import predict as predict
from .inference.predictor import Predictor as Predictor
from .inference.threshold import Threshold as Threshold
from .metrics import register_protocol as register_protocol
from .models.family import register_backbone as register_backbone
from .report.page import write_report as write_report
from .training.trainer import Run as Run
from .training.trainer import fit as fit
from .types import Batch as Batch
from .types import Explanation as Explanation
from .types import Features as Features
from .types import Judgement as Judgement
from .types import Record as Record
from .types import Source as Source
from .types import View as View

__version__: str
