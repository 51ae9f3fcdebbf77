"""Carries calls between gRPC's core and the handlers: the event loop, the server, the call."""
