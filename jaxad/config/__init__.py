"""Every setting of jaxad as frozen dataclasses, free of jax imports, with presets and a JSON round trip.

A field's docstring says what it means, its metadata where the default comes from (`setting`, `provenance`). `check()`
lists every impossible value at once.
"""

from jaxad.config.clipfusion import CLIPFusionConfig as CLIPFusionConfig
from jaxad.config.clipfusion_presets import CLIPFusionPreset as CLIPFusionPreset
from jaxad.config.dinomaly import DinomalyConfig as DinomalyConfig
from jaxad.config.dpdiff import DPDiffConfig as DPDiffConfig
from jaxad.config.fields import Blocks as Blocks
from jaxad.config.fields import Config as Config
from jaxad.config.fields import Precision as Precision
from jaxad.config.fields import bad_seed as bad_seed
from jaxad.config.fields import from_json as from_json
from jaxad.config.fields import setting as setting
from jaxad.config.fields import to_json as to_json
from jaxad.config.first_stage import FirstStageConfig as FirstStageConfig
from jaxad.config.first_stage import FirstStageTrainConfig as FirstStageTrainConfig
from jaxad.config.hvq_trans import HVQTransConfig as HVQTransConfig
from jaxad.config.inp_former import INPFormerConfig as INPFormerConfig
from jaxad.config.linear import LinearConfig as LinearConfig
from jaxad.config.padim import PaDiMConfig as PaDiMConfig
from jaxad.config.patch_bank import PatchBankConfig as PatchBankConfig
from jaxad.config.promptad import PromptADConfig as PromptADConfig
from jaxad.config.rd4ad import RD4ADConfig as RD4ADConfig
from jaxad.config.reference import SettingRow as SettingRow
from jaxad.config.reference import provenance as provenance
from jaxad.config.retrieval import RetrievalConfig as RetrievalConfig
from jaxad.config.simplenet import SimpleNetConfig as SimpleNetConfig
from jaxad.config.training import DataConfig as DataConfig
from jaxad.config.training import TrainConfig as TrainConfig
from jaxad.config.uniad import UniADConfig as UniADConfig
from jaxad.config.vitad import ViTADConfig as ViTADConfig
from jaxad.config.vlmdiff import VLMDiffConfig as VLMDiffConfig
from jaxad.config.vlmdiff import VLMDiffPreset as VLMDiffPreset
