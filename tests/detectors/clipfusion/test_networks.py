"""The networks of CLIPFusion: what makes others of them, and which files they are."""

import shutil

import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

from jaxad.data import ClassNames
from jaxad.detectors.clipfusion.detector import CLIPFusion
from jaxad.detectors.clipfusion.networks import embed_texts, load_networks
from jaxad.errors import WeightsError
from jaxad.models import known_hashes
from jaxad.nn import module_state
from tests.detectors.clipfusion.made_checkpoints import fusion_config, write_clip, write_diffusion

DTYPES = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


@pytest.fixture
def folder(tmp_path):
    write_clip(tmp_path / "networks" / "clip")
    write_diffusion(tmp_path / "networks" / "diffusion", channels=4)
    return tmp_path / "networks"


def test_what_the_texts_and_the_structure_are_read_from_makes_another_run(folder, tmp_path):
    def hashes(place):
        return CLIPFusion.create(fusion_config(place)).weight_hashes

    def changed():
        return {key for key, value in hashes(moved).items() if value != expected[key]}

    moved, expected = shutil.copytree(folder, tmp_path / "moved"), hashes(folder)
    assert hashes(moved) == expected
    text, clip = moved / "diffusion" / "text_encoder", moved / "clip" / "open_clip_config.json"
    tensors = load_file(text / "model.safetensors")
    name = next(iter(tensors))
    changes = {
        text / "model.safetensors": save({**tensors, name: tensors[name] + 1}),
        text / "config.json": (text / "config.json").read_bytes().replace(b"gelu", b"quick_gelu"),
        clip: clip.read_bytes().replace(b'"embed_dim"', b'"quick_gelu": true, "embed_dim"'),
    }
    for file, content in changes.items():
        kept = file.read_bytes()
        file.write_bytes(content)
        # A text tower with another activation is that of another Stable Diffusion, which fills texts up otherwise.
        others = {"diffusion_tokenizer"} if file.name == "config.json" else set()
        assert changed() == {"clip" if file == clip else "diffusion"} | others
        file.write_bytes(kept)
    write_diffusion(moved / "diffusion", channels=4, pad="<|endoftext|>")
    assert changed() == set(), "the tower says what texts are filled up with"


def test_what_comes_from_the_hub_is_pinned_and_compared_with_what_is_published(folder, tmp_path, monkeypatch):
    snapshots = tmp_path / "cache" / "models--someone--sd" / "snapshots"
    shutil.copytree(folder / "diffusion", snapshots / ("1" * 40))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    model = CLIPFusion.create(fusion_config(folder, "mapdiff", diffusion="someone/sd"))
    assert model.config.diffusion == "someone/sd"
    assert model.pretrained.id == f"diffusion=someone/sd@{'1' * 40}"
    monkeypatch.setattr(known_hashes, "KNOWN", {"someone/sd": {"text_encoder/model.safetensors": "5" * 64}})
    with pytest.raises(WeightsError, match="not that of the published"):
        model.remember(ClassNames(("disc",)))
    # A newer commit does not take the place of the one that was saved.
    shutil.copytree(folder / "diffusion", snapshots / ("2" * 40))
    loaded = CLIPFusion.load_pretrained(model.config, {"id": model.pretrained.id}, None)
    assert (loaded.id, dict(loaded.sources)) == (model.pretrained.id, {"diffusion": "someone/sd"})
    # One that the user names does.
    asked = f"diffusion=someone/sd@{'2' * 40}"
    assert CLIPFusion.load_pretrained(model.config, {"id": model.pretrained.id}, asked).id == asked


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_half_of_a_stable_diffusion_as_its_variant(folder, variant):
    """What `variant="fp16"` leaves of a download: no file has its plain name."""
    config = fusion_config(folder, "mapdiff")
    plain = embed_texts(config, ("disc",))
    for file in (folder / "diffusion").glob("*/*.safetensors"):
        tensors = {name: tensor.astype(DTYPES[variant]) for name, tensor in load_file(file).items()}
        file.unlink()
        save_file(tensors, file.with_name(f"{file.stem}.{variant}.safetensors"))
    networks = load_networks(config)
    assert {array.dtype for array in module_state.split(networks.unet)[1].values()} == {np.dtype("float32")}
    texts = embed_texts(config, ("disc",))
    np.testing.assert_allclose(texts.states.queries, plain.states.queries, atol=0.1)


def test_messages_name_the_setting_what_it_must_hold_and_what_lies_there(folder, tmp_path):
    def said(run):
        with pytest.raises(WeightsError) as caught:
            run()
        return str(caught.value)

    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "512-inpainting-ema.ckpt").touch()
    config = fusion_config(folder, "mapdiff", diffusion=str(tmp_path / "wrong"))
    message = said(lambda: load_networks(config))
    for part in (
        f"diffusion = {tmp_path / 'wrong'}",
        "unet, vae, text_encoder and tokenizer",
        "512-inpainting-ema.ckpt",
    ):
        assert part in message
    clip = fusion_config(folder, "patchclip", clip=str(tmp_path / "wrong"))
    assert said(lambda: load_networks(clip)).startswith(f"clip = {tmp_path / 'wrong'}: must be a CLIP's weights")
    shutil.rmtree(folder / "diffusion" / "tokenizer")
    message = said(lambda: embed_texts(fusion_config(folder, "mapdiff"), ("disc",)))
    assert message.startswith(f"diffusion_tokenizer = {folder / 'diffusion'}: must hold vocab.json")


def test_foreign_tokenizer_conditions_stable_diffusion_2_as_its_own(folder, tmp_path):
    """Its tower says that texts are filled up with 0, whatever the tokenizer says that lies beside it."""
    moved = shutil.copytree(folder, tmp_path / "moved")
    write_diffusion(moved / "diffusion", channels=4, pad="<|endoftext|>")
    own, other = (embed_texts(fusion_config(place, "mapdiff"), ("disc",)).states for place in (folder, moved))
    foreign = str(moved / "diffusion" / "tokenizer")
    named = embed_texts(fusion_config(folder, "mapdiff", diffusion_tokenizer=foreign), ("disc",)).states
    for mine, theirs, third in zip(own, other, named, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(mine, third)
