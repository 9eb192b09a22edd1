"""Diffusion: noise schedules, samplers, and denoisers of tokens conditioned on prototypes."""
