"""Faults done to real servers, and what is lost by them. `make chaos` runs them at full size,
tests/integration/test_chaos.py at a small one.
"""
