#!/bin/sh
# Builds the example with Debian's packages alone:
#
#     apt install golang-go golang-google-grpc-dev golang-google-genproto-dev golang-google-protobuf-dev protobuf-compiler protoc-gen-go protoc-gen-go-grpc
#     ./build.sh && GRPC_GO_RETRY=on ./build/example localhost:50051 /data/faces images 10
#
# grpc-go 1.33, which these packages are of, minds the retries of a service config only with GRPC_GO_RETRY=on.
# The modules of the protos are made in `build`; none is kept in the repository.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
proto=$here/../../../../proto
out=${1:-$here/build}
mkdir -p "$out/src"

# The protos name no Go package, since that is a matter of who uses them.
package='visage/v1;visage'
set -- "Mvisage/v1/training.proto=$package" "Mvisage/v1/prediction.proto=$package"
protoc -I "$proto" --go_out="$out/src" --go-grpc_out="$out/src" \
  --go_opt="$1" --go_opt="$2" --go-grpc_opt="$1" --go-grpc_opt="$2" visage/v1/training.proto visage/v1/prediction.proto

cd "$here"
GO111MODULE=off GOPATH="$out:/usr/share/gocode" go build -o "$out/example" main.go
