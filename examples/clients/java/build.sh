#!/bin/sh
# Builds the program with Debian's packages (no network):
#
#     apt-get install default-jdk-headless protobuf-compiler protobuf-compiler-grpc-java-plugin \
#         libgrpc-java libprotobuf-java libguava-java libnetty-java libnetty-tcnative-java libperfmark-java \
#         libnetty-tcnative-jni libgeronimo-annotation-1.3-spec-java
#     sh build.sh build
#     java -Djava.library.path=build/native -jar build/client.jar
#
# The argument is the folder that everything is written into.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/generated" "$1/classes" "$1/native"
out=$(cd "$1" && pwd)
protoc -I "$here/../../../protos" --java_out="$out/generated" \
    --plugin=protoc-gen-grpc-java=/usr/bin/grpc_java_plugin --grpc-java_out="$out/generated" \
    seqserve/v1/text_generation.proto seqserve/v1/text_classification.proto seqserve/v1/sequences.proto \
    google/rpc/status.proto google/rpc/error_details.proto
find "$out/generated" -name '*.java' > "$out/sources"
jars=
for name in grpc-api grpc-context grpc-core grpc-netty grpc-protobuf grpc-protobuf-lite grpc-stub \
    netty-buffer netty-codec netty-codec-http netty-codec-http2 netty-common netty-handler netty-handler-proxy \
    netty-resolver netty-transport netty-tcnative geronimo-annotation-1.3-spec guava perfmark-api protobuf; do
    jars="$jars /usr/share/java/$name.jar"
done
javac -nowarn -proc:none -d "$out/classes" -cp "$(echo $jars | tr ' ' ':')" "$here/SeqserveClient.java" @"$out/sources"
# A line of a manifest has at most 72 bytes, and one that goes on begins with a space.
{ echo "Main-Class: SeqserveClient" && echo "Class-Path: " && for jar in $jars; do echo "  $jar"; done; } > "$out/manifest"
jar --create --file "$out/client.jar" --manifest "$out/manifest" -C "$out/classes" .
# TLS: Debian's netty has no ALPN of its own, and looks for OpenSSL's binding by another name than its package has.
cp /usr/lib/*/jni/libnetty-tcnative.so "$out/native/libnetty_tcnative.so"
