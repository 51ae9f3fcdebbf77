"""Versions of models: checks, trial, tuning, loading, the table of versions, the watcher."""
