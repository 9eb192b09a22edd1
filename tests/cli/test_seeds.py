"""Seeds that are no setting of a config have the bounds of those that are."""

from __future__ import annotations

import pytest

from jaxad.cli.demo import Demo
from jaxad.config import CLIPFusionConfig, DataConfig
from jaxad.data import make_demo
from jaxad.data.fit_options import FitData, ReferenceOptions
from jaxad.errors import ConfigError


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_a_seed_out_of_bounds_is_refused_before_any_work(seed, tmp_path, parts):
    named = f"seed = {seed}"
    for work in (
        lambda: Demo(tmp_path, seed=seed).run(),
        lambda: make_demo(tmp_path, seed=seed),
        lambda: parts.train.per_class(1, seed=seed),
    ):
        with pytest.raises(ConfigError, match=named):
            work()
    problems = ReferenceOptions(seed=seed).problems(CLIPFusionConfig(), FitData("demo", None, DataConfig()))
    assert any(named in problem for problem in problems)
    assert not any(tmp_path.iterdir())
