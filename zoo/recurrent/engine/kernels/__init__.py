"""Recurrences whose loop over time is inside one GPU kernel, and when they are taken."""

from zoo.recurrent.engine.kernels.choice import obstacle
from zoo.recurrent.engine.kernels.linear_choice import obstacle as linear_obstacle
from zoo.recurrent.engine.kernels.linear_choice import takes_elements

__all__ = ["linear_obstacle", "obstacle", "takes_elements"]
