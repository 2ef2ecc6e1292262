"""Methods by name. A file in this package that registers a method is all that the registry needs."""

from pdsynth.methods.base import Method, create, registry

__all__ = ["Method", "create", "registry"]
