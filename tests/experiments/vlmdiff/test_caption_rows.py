import pytest

from experiments.vlmdiff.caption_rows import find
from jaxad.errors import DataError
from tests.experiments.vlmdiff.made_captions import captioned


def test_captions_are_found_by_published_names_and_ours(parts, tmp_path):
    ours = captioned(tmp_path, parts, "train", "a disc", "mvtec_ad", "internvl3-8b-hf")
    authors = captioned(tmp_path, parts, "train", "a disc", "realiad", "internvl")
    captioned(tmp_path, parts, "train", "a disc", "mvtec", "blip")
    coco = tmp_path / "annotations" / "captions_val2017_internvl.json"
    coco.parent.mkdir()
    coco.write_text("{}")
    assert find(tmp_path, "mvtec_ad", "internvl", "train") == ours
    assert find(tmp_path, "mvtec_ad", "blip", "train") == tmp_path / "mvtec_captions_blip_pd"
    assert find(tmp_path, "real_iad", "internvl", "train") == authors
    assert find(tmp_path, "coco_ad/all-split_1", "internvl", "test") == coco
    with pytest.raises(DataError, match=r"visa_captions_internvl\.\.\._pd with train captions.*there is nothing"):
        find(tmp_path, "visa", "internvl", "train")
    with pytest.raises(DataError, match=r"with test captions.*there is nothing"):
        find(tmp_path, "mvtec_ad", "internvl", "test")
    captioned(tmp_path, parts, "train", "a disc", "mvtec", "internvl")
    with pytest.raises(DataError, match=r"there is .*internvl3-8b-hf_pd, .*mvtec_captions_internvl_pd"):
        find(tmp_path, "mvtec_ad", "internvl", "train")
