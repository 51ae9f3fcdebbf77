"""Reads networks that Keras saved as `.keras` files, without Keras and TensorFlow."""

from training.convert.keras.reading import read_keras

__all__ = ["read_keras"]
