"""gRPC servicers, thin: parse, delegate, wrap. Only this room knows protobuf and status codes."""
