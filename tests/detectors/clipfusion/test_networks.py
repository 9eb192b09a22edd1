"""The networks of CLIPFusion: what makes others of them, and which files they are."""

import shutil

import huggingface_hub
import pytest
from safetensors.numpy import load_file, save

from jaxad.data import ClassNames
from jaxad.detectors.clipfusion.detector import CLIPFusion
from jaxad.errors import WeightsError
from jaxad.models import known_hashes
from tests.detectors.clipfusion.made_checkpoints import fusion_config, write_clip, write_diffusion


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
