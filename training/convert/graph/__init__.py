"""ONNX graphs: their nodes copied, their constants computed, their weights in a file, and what runs them."""
