"""Thin gRPC servicers: parse, delegate, respond. Only this package knows protobuf and status codes."""
