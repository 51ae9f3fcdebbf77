"""Tests mirror the rooms; tests/integration starts the real server as a process of its own."""
