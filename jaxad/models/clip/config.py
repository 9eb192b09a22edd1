"""Shapes of CLIP's two towers, and how they are read from the configs and tensors that users have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxad.errors import WeightsError
from jaxad.models.weights.config_fields import ConfigFields, plausible_depth, shown, transformer_sizes
from jaxad.nn.normalization import OPENAI_CLIP, Normalization
from jaxad.nn.positions import Interpolation

Activation = Literal["gelu", "quick_gelu"]
"""Exact GELU, or x * sigmoid(1.702 x), which OpenAI trained with."""

Filling = Literal["zero", "end"]
"""What a text is filled up with: id 0, as towers of open_clip were trained (Stable Diffusion 2.x), or the end token, as
OpenAI's (1.x)."""

TextPool = Literal["largest", "end", "last"]
"""Whose token's state stands for the text: the largest id, the first id equal to `end`, or the last place."""


@dataclass(frozen=True)
class VisionConfig:
    """Shape of an image tower; the defaults are those of CLIP ViT-B/16."""

    width: int = 768
    """Channels c of a token."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads of a block."""
    hidden: int = 3072
    """Width of the feed-forward layer."""
    patch: int = 16
    """Side of a patch in pixels."""
    image_size: int = 224
    """Side in pixels of the images whose grid the learned positions describe; any other size is interpolated."""
    projection: int = 512
    """Channels d of the embedding shared with texts."""
    activation: Activation = "quick_gelu"
    """Of the feed-forward layer."""
    norm_eps: float = 1e-5
    """Epsilon of every layer norm."""
    pre_norm: bool = True
    """Layer norm between the embedding and the first block."""
    layer_scale: bool = False
    """Learned gain per channel on both branches of a block."""
    pool: Literal["class", "mean"] = "class"
    """What stands for the image: the class token, or the mean of the patches."""
    norm_after_pool: bool = False
    """Whether the final norm follows the mean over patches in place of preceding it."""
    interpolation: Interpolation = "bicubic"
    """How positions are resized to other grids: "bicubic" as transformers does, "antialias" as open_clip does."""
    normalization: Normalization = OPENAI_CLIP
    """How the tower takes images, which lies in a file of its own beside config.json."""

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> VisionConfig:
        """The image tower that the config.json of a CLIPModel describes.

        Args:
            config: content of config.json; fields it lacks have the class's default.

        Raises:
            WeightsError: another model type, or settings this network does not have.
        """
        sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        c = _huggingface(config, "vision", {**sizes, "image_size": 224, "patch_size": 32, "num_channels": 3})
        c.one_of(num_channels=(3,))
        c.sizes("image_size", "patch_size", "projection_dim")
        _check_transformer(c)
        return cls(
            **transformer_sizes(c),
            patch=c["patch_size"],
            image_size=c["image_size"],
            projection=c["projection_dim"],
            activation=c["hidden_act"],
            norm_eps=c["layer_norm_eps"],
        )

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any]) -> VisionConfig:
        """The image tower of an open_clip model config, which must be a ViT of open_clip's own.

        Raises:
            WeightsError: fields are missing, or settings this network does not have.
        """
        sizes = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
        c = _open_clip(config, "vision_cfg", {**sizes, "pool_type": "tok", "pos_embed_type": "learnable"})
        c.one_of(pool_type=("tok", "avg"), pos_embed_type=("learnable",))
        c.sizes("image_size", "patch_size")
        c.flags("no_ln_pre", "final_ln_after_pool")
        c.without("timm_model_name", "attentional_pool", "act_kwargs", "norm_kwargs")
        c.multiple("width", "head_width")
        _check_open_clip(c)
        return cls(
            width=c["width"],
            depth=c["layers"],
            heads=c["width"] // c["head_width"],
            hidden=int(c["width"] * c["mlp_ratio"]),
            patch=c["patch_size"],
            image_size=c["image_size"],
            projection=config["embed_dim"],
            activation="quick_gelu" if config.get("quick_gelu") else "gelu",
            pre_norm=not c.get("no_ln_pre", False),
            layer_scale=c.get("ls_init_value") is not None,
            pool="mean" if c["pool_type"] == "avg" else "class",
            norm_after_pool=c.get("final_ln_after_pool", False),
            interpolation="antialias",
        )


@dataclass(frozen=True)
class TextConfig:
    """Shape of a text tower; the defaults are those of CLIP ViT-B/16."""

    width: int = 512
    """Channels c of a token."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 8
    """Attention heads of a block."""
    hidden: int = 2048
    """Width of the feed-forward layer."""
    vocabulary: int = 49408
    """Number of token ids."""
    context: int = 77
    """Largest number of tokens of a text."""
    projection: int | None = 512
    """Channels d of the embedding shared with images, None for a tower without projection."""
    activation: Activation = "quick_gelu"
    """Of the feed-forward layer."""
    norm_eps: float = 1e-5
    """Epsilon of every layer norm."""
    layer_scale: bool = False
    """Learned gain per channel on both branches of a block."""
    causal: bool = True
    """Whether tokens see only themselves and those before."""
    pool: TextPool = "largest"
    """Which token's state stands for the text."""
    end: int = 49407
    """Id of the token that ends a text, for `pool` = "end"."""

    @property
    def filling(self) -> Filling:
        """What Stable Diffusion fills texts up with for this tower: OpenCLIP's, of 2.x, has the exact GELU."""
        return "zero" if self.activation == "gelu" else "end"

    @classmethod
    def stable_diffusion(cls, version: Literal[1, 2]) -> TextConfig:
        """Text tower of Stable Diffusion 1.x (CLIP ViT-L/14) or 2.x (OpenCLIP ViT-H/14 without its last block)."""
        if version == 1:
            return cls(width=768, heads=12, hidden=3072, projection=None)
        return cls(width=1024, depth=23, heads=16, hidden=4096, projection=None, activation="gelu")

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any], *, projected: bool) -> TextConfig:
        """The text tower that a config.json of transformers describes, a CLIPTextModel's or a CLIPModel's.

        Args:
            config: content of config.json; fields it lacks have the class's default.
            projected: whether the weights hold the projection.

        Raises:
            WeightsError: another model type, or settings this network does not have.
        """
        sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "vocab_size": 49408}
        c = _huggingface(config, "text", {**sizes, "max_position_embeddings": 77, "eos_token_id": 49407})
        c.sizes("eos_token_id", least=0)
        c.sizes("vocab_size", "max_position_embeddings", *(["projection_dim"] if projected else []))
        _check_transformer(c)
        stable_diffusion_2 = (c["hidden_size"], c["num_hidden_layers"]) == (1024, 23)
        return cls(
            **transformer_sizes(c),
            vocabulary=c["vocab_size"],
            context=c["max_position_embeddings"],
            projection=c["projection_dim"] if projected else None,
            # Some copies of Stable Diffusion 2 say quick_gelu, which it was not trained with.
            activation="gelu" if stable_diffusion_2 else c["hidden_act"],
            norm_eps=c["layer_norm_eps"],
            # Old configs say 2, which ends no text; transformers takes the largest id then.
            pool="largest" if c["eos_token_id"] == 2 else "end",
            end=c["eos_token_id"],
        )

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any]) -> TextConfig:
        """The text tower of an open_clip model config, which must be a transformer of open_clip's own.

        Raises:
            WeightsError: fields are missing, or settings this network does not have.
        """
        sizes = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0}
        c = _open_clip(config, "text_cfg", {**sizes, "pool_type": "argmax", "eos_id": 2, "proj_type": "linear"})
        pools: dict[str, TextPool] = {"argmax": "largest", "eos": "end", "last": "last"}
        c.one_of(pool_type=tuple(pools), proj_type=("linear",))
        c.sizes("context_length", "vocab_size")
        c.sizes("eos_id", least=0)
        c.flags("no_causal_mask")
        c.without("hf_model_name", "embed_cls", "proj_bias", "act_kwargs", "norm_kwargs")
        c.multiple("width", "heads")
        _check_open_clip(c)
        return cls(
            width=c["width"],
            depth=c["layers"],
            heads=c["heads"],
            hidden=int(c["width"] * c["mlp_ratio"]),
            vocabulary=c["vocab_size"],
            context=c["context_length"],
            projection=config["embed_dim"],
            activation="quick_gelu" if config.get("quick_gelu") else "gelu",
            layer_scale=c.get("ls_init_value") is not None,
            causal=not c.get("no_causal_mask", False),
            pool=pools[c["pool_type"]],
            end=c["eos_id"],
        )


@dataclass(frozen=True)
class CLIPConfig:
    """Shape of both towers."""

    vision: VisionConfig = VisionConfig()
    text: TextConfig = TextConfig()

    @classmethod
    def openai(cls, size: Literal["B/32", "B/16", "L/14"]) -> CLIPConfig:
        """OpenAI's ViT of that size."""
        if size == "L/14":
            vision = VisionConfig(width=1024, depth=24, heads=16, hidden=4096, patch=14, projection=768)
            return cls(vision, TextConfig(width=768, heads=12, hidden=3072, projection=768))
        return cls(VisionConfig(patch={"B/32": 32, "B/16": 16}[size]))

    @classmethod
    def vit_b_16_plus_240(cls) -> CLIPConfig:
        """OpenCLIP's ViT-B-16-plus-240, the CLIP of WinCLIP and CLIPFusion."""
        vision = {"image_size": 240, "layers": 12, "width": 896, "patch_size": 16}
        text = {"width": 640, "heads": 10, "layers": 12}
        return cls.from_open_clip({"embed_dim": 640, "vision_cfg": vision, "text_cfg": text})

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> CLIPConfig:
        """The towers that the config.json of a CLIPModel describes; raises as they do."""
        return cls(VisionConfig.from_huggingface(config), TextConfig.from_huggingface(config, projected=True))

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any]) -> CLIPConfig:
        """The towers of an open_clip model config (open_clip_config.json or its model_cfg); raises as they do."""
        config = ConfigFields("open_clip config", config, {}).get("model_cfg", config)
        return cls(VisionConfig.from_open_clip(config), TextConfig.from_open_clip(config))


def open_clip_config_of(tensors: Mapping[str, Any], quick_gelu: bool, text: str = "") -> dict[str, Any]:
    """The open_clip model config of weights that have none, from their names and shapes.

    Args:
        tensors: arrays by the names that open_clip gives them, of both towers or of the text tower alone.
        quick_gelu: whether they were trained with it, which no shape tells.
        text: what the names of the text tower begin with.

    Raises:
        WeightsError: a network whose config cannot be told from its tensors.

    Heads are 64 wide as in all published towers, but for the image towers of ViT-H, g, bigG and e, which have 16 heads.
    """
    _refuse_without(
        tensors,
        *(f"{text}{name}" for name in ("text_projection", "token_embedding.weight", "positional_embedding")),
        f"{text}transformer.resblocks.0.mlp.c_fc.weight",
    )
    problems = []
    config = {"embed_dim": tensors[f"{text}text_projection"].shape[1], "quick_gelu": quick_gelu}
    if "visual.class_embedding" in tensors:
        first = "visual.transformer.resblocks.0.mlp.c_fc.weight"
        _refuse_without(tensors, "visual.conv1.weight", "visual.positional_embedding", first)
        width, _, patch, _ = tensors["visual.conv1.weight"].shape
        side = round((len(tensors["visual.positional_embedding"]) - 1) ** 0.5)
        if "visual.ln_pre.weight" not in tensors:
            problems.append("visual.ln_pre.weight: missing, so that the way of pooling cannot be told")
        config["vision_cfg"] = {
            "image_size": side * patch,
            "patch_size": patch,
            "head_width": width // 16 if width in (1280, 1408, 1664, 1792) else 64,
            **_open_clip_transformer(tensors, "visual.transformer.", width),
        }
    vocabulary, width = tensors[f"{text}token_embedding.weight"].shape
    if vocabulary != 49408:
        problems.append(f"token_embedding.weight: {vocabulary} tokens are not CLIP's, so that pooling cannot be told")
    config["text_cfg"] = {
        "context_length": len(tensors[f"{text}positional_embedding"]),
        "vocab_size": vocabulary,
        "heads": width // 64,
        **_open_clip_transformer(tensors, f"{text}transformer.", width),
    }
    _refuse("no open_clip_config.json, and the weights do not tell it", problems)
    return config


def text_config_of(tensors: Mapping[str, Any], activation: Activation) -> TextConfig:
    """The text tower of weights in the layout of transformers that have no config.json, as in files of LDM.

    Raises:
        WeightsError: tensors are missing that tell its shape.
    """
    tables = ("embeddings.token_embedding.weight", "embeddings.position_embedding.weight")
    _refuse_without(tensors, *tables, "encoder.layers.0.mlp.fc1.weight")
    width = tensors["embeddings.token_embedding.weight"].shape[1]
    return TextConfig(
        width=width,
        depth=_count(tensors, "encoder.layers."),
        heads=width // 64,
        hidden=len(tensors["encoder.layers.0.mlp.fc1.weight"]),
        vocabulary=len(tensors["embeddings.token_embedding.weight"]),
        context=len(tensors["embeddings.position_embedding.weight"]),
        projection=None,
        activation=activation,
    )


def _open_clip_transformer(tensors: Mapping[str, Any], prefix: str, width: int) -> dict[str, Any]:
    return {
        "width": width,
        "layers": _count(tensors, f"{prefix}resblocks."),
        # Half a channel more: the ratio times the width is rounded down.
        "mlp_ratio": (len(tensors[f"{prefix}resblocks.0.mlp.c_fc.weight"]) + 0.5) / width,
        "ls_init_value": 1.0 if f"{prefix}resblocks.0.ls_1.gamma" in tensors else None,
    }


def _refuse_without(tensors: Mapping[str, Any], *names: str) -> None:
    missing = [f"{name}: missing" for name in names if name not in tensors]
    _refuse("no config, and tensors that would tell the shape of the network", missing)


def _count(names: Iterable[str], prefix: str) -> int:
    """Number of blocks, whose names go on with their number."""
    numbers = {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    return plausible_depth(len(numbers), prefix)


def _huggingface(config: Any, part: Literal["vision", "text"], defaults: dict[str, Any]) -> ConfigFields:
    """Fields of one tower in a config.json."""
    shared = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": 512}
    whole = ConfigFields("config.json", config, {})
    model_type = whole.get("model_type")
    if part == "text" and model_type == "clip_text_model":
        return ConfigFields("config.json", config, {**shared, **defaults})
    if model_type != "clip":
        needed = "'clip' or 'clip_text_model'" if part == "text" else "'clip'"
        raise WeightsError(f"config.json: model_type = {shown(model_type)}: must be {needed}")
    # OpenAI's own files keep the fields in a second place too, which goes first.
    places = (f"{part}_config", f"{part}_config_dict")
    first, second = (ConfigFields(f"config.json, {place}", whole.get(place) or {}, {}) for place in places)
    projection = {"projection_dim": whole.get("projection_dim", 512)}
    return ConfigFields(f"config.json, {part}_config", {**first, **second, **projection}, {**shared, **defaults})


def _open_clip(config: Any, part: str, defaults: dict[str, Any]) -> ConfigFields:
    """Fields of one tower in an open_clip model config."""
    whole = ConfigFields("open_clip config", config, {})
    whole.problems += [f"has no {name}" for name in ("embed_dim", part) if name not in whole]
    whole.sizes("embed_dim")
    whole.check(["quick_gelu"], lambda value: value is None or isinstance(value, bool), "true or false")
    whole.stop()
    return ConfigFields(f"open_clip config, {part}", whole[part], defaults)


def _check_transformer(c: ConfigFields) -> None:
    """Checks the fields that both towers have in files of transformers; raises WeightsError with all problems."""
    c.one_of(hidden_act=get_args(Activation))
    c.depths("num_hidden_layers")
    c.sizes("intermediate_size")
    c.numbers("layer_norm_eps")
    c.multiple("hidden_size", "num_attention_heads")
    c.stop()


def _check_open_clip(c: ConfigFields) -> None:
    """Checks the fields that both towers have in files of open_clip; raises WeightsError with all problems."""
    c.depths("layers")
    c.numbers("mlp_ratio")
    c.without("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
    c.stop()


def _refuse(what: str, problems: Sequence[str]) -> None:
    if problems:
        raise WeightsError("\n".join([f"{what}: cannot be used:", *(f"  {problem}" for problem in problems)]))
