"""Generated from protos/inference by `make protos`: messages and stubs of the Open Inference Protocol, whose
package is `inference`.

Nothing in `seqserve` imports it by itself: another client of the protocol in the same process, tritonclient
for one, registers messages of the same names, and protobuf takes them once only.
"""
