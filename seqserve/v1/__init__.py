"""Messages and stubs of the package `seqserve.v1`, generated from protos/seqserve/v1 by `make protos`."""
