"""`jaxad models`."""

from jaxad.models.catalog import networks
from tests.cli.shell import jaxad


def test_models_lists_every_network(capsys):
    jaxad("models")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(networks())
    unet = next(line for line in lines if line.startswith("SD 1.5 UNet"))
    assert "859.5" in unet
    assert "--model.diffusion" in unet
