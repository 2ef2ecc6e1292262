"""Losses beyond the squared error: the microstructure loss (Eqs. 14-16) and the pattern loss (Eqs. 9-11)."""
