"""Loggers by the names of their files; `jaxad.training.logger` says what a logger is."""
