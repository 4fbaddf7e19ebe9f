#!/bin/sh
# Build the images stt (worker) and stt-server with docker, podman or buildah, whichever works here;
# any other target of the Dockerfile becomes the image stt-TARGET.
#   TOOL=podman BASE=registry.example.org/python:3.11-slim VERSION=1.2 deploy/docker/build.sh
#   TARGETS="server-cuda ray" deploy/docker/build.sh
# Further arguments go to each build. The base is pinned by its digest unless it was built here.
set -eu
cd "$(dirname "$0")/../.."

BASE=${BASE:-docker.io/library/python:3.11-slim}
VERSION=${VERSION:-$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' stt_lib/__init__.py)}

works() {
    case $1 in
        docker) docker info ;;
        *) "$1" --version ;;
    esac >/dev/null 2>&1
}

first_that_works() {
    for tool in docker podman buildah; do
        if works "$tool"; then
            echo "$tool"
            return
        fi
    done
    echo "install docker, podman or buildah to build images" >&2
    exit 1
}

inspect() {
    "$TOOL" inspect --type image --format "$1" "$BASE" 2>/dev/null
}

digest() {
    case $TOOL in
        buildah) inspect '{{.FromImageDigest}}' ;;
        *) inspect '{{index .RepoDigests 0}}' ;;
    esac | sed -n 's/^.*\(sha256:.*\)$/\1/p'
}

# The base by digest if a registry gave it one, else by name.
pinned() {
    # Before the last slash, a colon separates a registry from its port.
    name=${BASE##*/}
    inspect '{{.}}' >/dev/null || "$TOOL" pull "$BASE" >/dev/null
    case $BASE,$(digest) in
        *@*,* | *,) echo "$BASE" ;;
        *) echo "${BASE%"$name"}${name%:*}@$(digest)" ;;
    esac
}

build() {
    target=$1 image=$2
    shift 2
    case $TOOL in
        docker) set -- docker build "$@" ;;
        # The format of OCI has no health checks.
        podman) set -- podman build --format docker "$@" ;;
        buildah) set -- buildah bud --format docker --layers "$@" ;;
    esac
    "$@" --file deploy/docker/Dockerfile --target "$target" --tag "$image" \
        --build-arg BASE="$PINNED" \
        --label org.opencontainers.image.version="$VERSION" \
        --label org.opencontainers.image.base.name="$PINNED" .
}

TOOL=${TOOL:-$(first_that_works)}
PINNED=$(pinned)
for target in ${TARGETS:-worker server}; do
    case $target in
        worker) image=stt:$VERSION ;;
        # Kustomize replaces images by name: a variant is a name of its own, not a tag.
        *) image=stt-$target:$VERSION ;;
    esac
    build "$target" "$image" "$@"
done
