# shellcheck shell=bash disable=SC2154
# Functions of .ci/run: what the machine lacks, and what must not be left on it.

# Installs from Debian what is missing; a machine that has everything needs no package index.
install_debian_packages() {
    local missing=()
    command -v git >/dev/null || missing+=(git)
    command -v chromium >/dev/null || missing+=(chromium)
    command -v dockerd >/dev/null || missing+=(docker.io)
    command -v podman >/dev/null || missing+=(podman)
    command -v newuidmap >/dev/null || missing+=(uidmap)
    command -v setpriv >/dev/null || missing+=(util-linux)
    command -v faketime >/dev/null || missing+=(faketime)
    command -v curl >/dev/null || missing+=(curl)
    command -v jq >/dev/null || missing+=(jq)
    command -v docker-compose >/dev/null || missing+=(docker-compose)
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    [ -x /usr/sbin/nginx ] || missing+=(nginx-light)
    command -v pgrep >/dev/null || missing+=(procps)
    [ -x /usr/sbin/munged ] || missing+=(munge)
    [ -x /usr/sbin/slurmctld ] || missing+=(slurm-wlm)
    [ -x /usr/sbin/slurmdbd ] || missing+=(slurmdbd)
    [ -x /usr/sbin/mariadbd ] || missing+=(mariadb-server)
    compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || missing+=(postgresql)
    command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
    [ -d /usr/share/fonts/truetype/dejavu ] || missing+=(fonts-dejavu-core)
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    ((${#missing[@]})) || return 0
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null
    apt-get install -qq --yes --no-install-recommends "${missing[@]}" >"$scratch/apt.log" 2>&1 || {
        tail -20 "$scratch/apt.log" >&2
        return 1
    }
}

# Starts a Docker engine unless one answers. Where none can run, the tests that need one are skipped and say so.
start_docker() {
    docker info >/dev/null 2>&1 && return 0
    dockerd >"$scratch/dockerd.log" 2>&1 &
    local engine=$!
    started+=("$engine")
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && return 0
        kill -0 "$engine" 2>/dev/null || break
        sleep 1
    done
    echo "WARNING: no Docker engine can run here, tests in containers will be skipped. Its last words:"
    tail -5 "$scratch/dockerd.log"
}

# Lets a user run rootless podman: ids for the users of its containers, and the image of the tests, whose building
# needs root. Where podman cannot run, the tests that need it are skipped and say so.
prepare_podman() {
    local name=$1 home=$2 image=$scratch/base.tar
    usermod --add-subuids 1000000-1065535 --add-subgids 1000000-1065535 "$name"
    ENGINE=podman deploy/organisms/base/build.sh knockem/base >/dev/null &&
        podman save --quiet --output "$image" knockem/base && chmod 644 "$image" &&
        (cd / && as_user "$name" "$home" podman load --quiet --input "$image" >/dev/null) ||
        echo "WARNING: podman cannot run here as root and as $name, its tests will be skipped"
    rm -f "$image"
}

find_uv() {
    if uv --version >/dev/null 2>&1; then
        command -v uv
    else
        "$bin/python" -m pip install --quiet --disable-pip-version-check --target "$scratch/uv" uv >&2
        echo "$scratch/uv/bin/uv"
    fi
}

# Runs the tests of what the extra `spark` brings, in an environment that has it beside all that is locked.
test_with_spark() {
    local python=$scratch/spark/bin/python tests=(tests/joblogs/test_tool_profiles.py tests/assets/test_job_log_profiles.py)
    local packages='import sysconfig; print(sysconfig.get_path("purelib"))'
    local extra='import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"]["spark"], sep="\n")'
    "$bin/python" -m venv "$scratch/spark" &&
        "$bin/python" -c "$packages" >"$("$python" -c "$packages")/locked.pth" &&
        "$python" -c "$extra" >"$scratch/spark.txt" &&
        sed -nE 's/^([a-z0-9].*==.*) \\$/\1/p' requirements.lock >"$scratch/locked.txt" &&
        "$python" -m pip install --quiet --disable-pip-version-check --requirement "$scratch/spark.txt" \
            --constraint "$scratch/locked.txt" &&
        PYTHONPATH=$root "$python" -P -m pytest -q -rs "${tests[@]}"
}

# as_user NAME HOME COMMAND...: without groups, and with nothing of root's environment that points to root's files.
as_user() {
    local name=$1 home=$2
    shift 2
    env --unset=XDG_CACHE_HOME --unset=XDG_DATA_HOME --unset=XDG_CONFIG_HOME --unset=XDG_RUNTIME_DIR --unset=PYENV_ROOT \
        HOME="$home" USER="$name" LOGNAME="$name" \
        setpriv --reuid="$name" --regid="$name" --clear-groups "$@"
}

# Ends what keeps the namespaces of a user's podman.
end_podman() {
    (cd / && as_user "$1" "$2" podman system migrate >/dev/null 2>&1) || true
}

nothing_runs_as() {
    for _ in $(seq 10); do
        pgrep -u "$1" >/dev/null || return 0
        sleep 1
    done
    echo "these processes were left running:" >&2
    pgrep -u "$1" -a >&2
    return 1
}

no_container_is_left() {
    local engine found left=
    for engine in docker podman; do
        if "$engine" info >/dev/null 2>&1; then
            found=$("$engine" ps --all --filter label=knockem.owner --format '{{.Names}} {{.Image}} {{.Status}}') || return 1
            left+=${found:+$found$'\n'}
        else
            echo "WARNING: $engine does not answer, nobody looked for its containers"
        fi
    done
    [ -z "$left" ] || {
        printf 'these containers were left:\n%s' "$left" >&2
        return 1
    }
}
