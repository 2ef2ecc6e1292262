"""Claim: the region patterns of synthesised scans mix with those of real ones."""
