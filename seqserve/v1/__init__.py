"""Generated from protos/seqserve/v1 by `make protos`: messages and stubs of the package `seqserve.v1`."""
