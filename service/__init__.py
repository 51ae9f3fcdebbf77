"""What runs in the pod: one recurrent engine over onnxruntime, behind gRPC. Never imports torch."""
