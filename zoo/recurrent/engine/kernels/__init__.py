"""Recurrences whose loop over time is inside one GPU kernel."""
