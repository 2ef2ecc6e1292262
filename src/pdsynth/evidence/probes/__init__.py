"""Claim: a model does not repeat its training participants, and follows a lesion or a change in its source."""
