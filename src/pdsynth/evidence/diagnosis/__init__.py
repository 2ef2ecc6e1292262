"""Claim: synthesised scans serve the diagnosis, in training or in test, as their controls do."""
