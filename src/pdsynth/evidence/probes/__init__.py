"""Claim: a model does not reproduce its training participants, and follows a lesion or a change in its source."""
