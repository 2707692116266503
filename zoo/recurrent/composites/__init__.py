"""Layers made of layers, or of any Flax cell."""
