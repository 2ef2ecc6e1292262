"""Claim: the uncertainty of a model holds what it states, after scaling on participants whom it never saw."""
