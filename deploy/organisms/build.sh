#!/bin/sh
# Build the images knockem/explicit, knockem/additive and knockem/unruly.
#
# usage: [ENGINE=podman] deploy/organisms/build.sh [BASE_IMAGE]      (default: docker, what the Dockerfiles name)
#
# The classic builder is used because it needs no image of its own, so this works without network once the base
# image is here; base/build.sh makes one.
set -eu
export DOCKER_BUILDKIT=0
folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
base_image=${1:-}

build() {
    "${ENGINE:-docker}" build --quiet ${base_image:+--build-arg "BASE_IMAGE=$base_image"} --tag "knockem/$1" --file "$folder/$1/Dockerfile" "$2"
}
build explicit "$folder/explicit"
build additive "$folder/additive"
build unruly "$folder"
