"""Inference server for recurrent networks: an engine over onnxruntime, behind gRPC. Never imports torch."""
