"""Messages and stubs of the Open Inference Protocol, generated from protos/inference by `make protos`.

Nothing in `seqserve` imports this package: another client of the protocol in the same process, such as
tritonclient, registers messages of the same names, and protobuf accepts each name only once.
"""
