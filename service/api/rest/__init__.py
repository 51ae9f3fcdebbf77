"""The REST form of the Open Inference Protocol, over the same calls as gRPC."""
