"""The meaning of the numbers: requests to time steps, outputs to answers, without gRPC or onnxruntime."""
