#!/bin/sh
# Builds the program with Debian's packages of Go (GOPATH mode, no network):
#
#     apt-get install golang-go golang-google-grpc-dev protobuf-compiler protoc-gen-go protoc-gen-go-grpc
#     sh build.sh build
#     build/client
#
# The argument is the folder that everything is written into.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/src"
out=$(cd "$1" && pwd)
# The stubs' import path is their folder below src/.
protoc -I "$here/../../../protos" --go_out="$out/src" --go-grpc_out="$out/src" \
    seqserve/v1/text_generation.proto seqserve/v1/text_classification.proto seqserve/v1/sequences.proto
cd "$here" && GO111MODULE=off GOPATH="$out:/usr/share/gocode" GOCACHE="$out/cache" go build -o "$out/client" .
