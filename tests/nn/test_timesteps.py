import numpy as np

from jaxad.nn.timesteps import timestep_embedding


def test_timestep_embedding_is_that_of_dit():
    t = np.array([0, 1, 250, 999])
    embedding = np.asarray(timestep_embedding(t, 8))
    frequency = np.exp(-np.log(10000) * np.arange(4) / 4)
    np.testing.assert_allclose(embedding[:, :4], np.cos(t[:, None] * frequency), atol=2e-4)
    np.testing.assert_allclose(embedding[:, 4:], np.sin(t[:, None] * frequency), atol=2e-4)
