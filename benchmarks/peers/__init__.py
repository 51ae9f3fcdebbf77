"""Triton Inference Server as a baseline: its environment, its models, and how it is started."""
