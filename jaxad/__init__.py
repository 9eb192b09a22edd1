"""jaxad: visual anomaly detection in JAX.

ds = jaxad.data.load("folder:/my/parts")
model = jaxad.DPDiff.create(jaxad.DPDiffConfig.preset("small"), key=jax.random.key(0))
run = jaxad.fit(model, ds.train, jaxad.TrainConfig.preset("small"), workdir="runs/parts", holdout=ds.holdout)
report = jaxad.evaluate(run.model, ds.test)
predictions = jaxad.predict(run.model, ["part.png"], threshold=run.threshold)

Names are imported when they are first used, so that `import jaxad` costs nothing.
The table of these names, which type checkers read as well, is `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
