"""Claim: the region patterns of synthesised scans cannot be distinguished from those of real scans."""
