"""Claim: synthesised scans show the difference between AD and NC, and the region patterns, that real scans show."""
