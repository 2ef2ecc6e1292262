"""Diffusion: coefficients (`schedule`) and sampling loops (`sampling`). The caller provides the network."""
