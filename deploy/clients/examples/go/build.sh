#!/bin/sh
# Builds the example with Debian's packages only:
#
#     apt install golang-go golang-google-grpc-dev golang-google-genproto-dev \
#         golang-google-protobuf-dev protobuf-compiler protoc-gen-go protoc-gen-go-grpc
#     ./build.sh && GRPC_GO_RETRY=on ./build/example localhost:50051 /data/faces images 10
#
# Their grpc-go 1.33 applies the retries of a service config only with GRPC_GO_RETRY=on.
# The modules of the protos are generated in `build`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
proto=$here/../../../../proto
out=${1:-$here/build}
mkdir -p "$out/src"

# The protos have no go_package option, because the import path depends on the user.
package='visage/v1;visage'
set -- "Mvisage/v1/training.proto=$package" "Mvisage/v1/prediction.proto=$package"
protoc -I "$proto" --go_out="$out/src" --go-grpc_out="$out/src" \
  --go_opt="$1" --go_opt="$2" --go-grpc_opt="$1" --go-grpc_opt="$2" visage/v1/training.proto visage/v1/prediction.proto

cd "$here"
GO111MODULE=off GOPATH="$out:/usr/share/gocode" go build -o "$out/example" main.go
