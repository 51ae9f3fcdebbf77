"""Interfaces of the tasks in the Open Inference Protocol."""
