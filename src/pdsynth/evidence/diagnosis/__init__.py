"""Claim: a diagnosis with synthesised scans, in training or in test, is as accurate as its control."""
