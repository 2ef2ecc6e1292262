"""Losses that the plain squared error lacks: microstructure (Eqs. 14-16) and pattern (Eqs. 9-11)."""
