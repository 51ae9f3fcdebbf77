"""Recipes: data to a trained, measured and exported model, one module a task."""
