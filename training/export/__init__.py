"""Writes trained networks as version folders, and proves them against PyTorch."""
