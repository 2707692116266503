"""A model zoo for Flax Linen; `zoo.recurrent` holds the recurrent layers.

Importing `zoo` alone loads nothing else: the registry reads `zoo.catalogue` through it, and listing
names must not cost an import of JAX.
"""

__version__ = "0.2.0"
