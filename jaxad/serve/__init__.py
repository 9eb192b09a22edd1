"""An inspector behind HTTP: `jaxad serve`. Needs the extra `serve`."""
