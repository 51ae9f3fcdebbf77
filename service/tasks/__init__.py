"""What numbers mean: a request to time steps, outputs to an answer. Knows neither gRPC nor onnxruntime."""
