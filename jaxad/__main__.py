"""`python -m jaxad` is `jaxad`."""

from jaxad.cli import main

main()
