"""Diffusion: the coefficients (`schedule`) and the loops (`sampling`); the network is the caller's."""
