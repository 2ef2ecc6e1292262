"""A page in the browser of this machine that synthesises from a scan that is dropped on it."""
