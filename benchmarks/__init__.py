"""Benchmarks of the layers against other libraries; run ``python -m benchmarks.recurrent``."""
