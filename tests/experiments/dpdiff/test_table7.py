from experiments.dpdiff import table7


def test_there_is_a_backbone_for_every_row():
    assert table7.BACKBONES.keys() == table7.PUBLISHED.keys()
