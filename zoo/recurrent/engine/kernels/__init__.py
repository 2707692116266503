"""Recurrences whose loop over time is inside one GPU kernel, and when they are taken."""

from zoo.recurrent.engine.kernels.choice import obstacle

__all__ = ["obstacle"]
