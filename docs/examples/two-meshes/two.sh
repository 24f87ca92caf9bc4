#!/bin/sh
# Two meshes on one machine, each with folders of its own below ~/two-meshes.
#   ./two.sh up                      start both, each as an agent too
#   ./two.sh desk opsmesh run ls     a command in one of them (or: workshop)
#   ./two.sh down                    stop them; what they know stays
set -eu
here=$(cd "$(dirname "$0")" && pwd)
base=$HOME/two-meshes

in_mesh() {
    name=$1
    shift
    env -u OPSMESH_NATS_URL XDG_CONFIG_HOME="$base/$name/config" XDG_STATE_HOME="$base/$name/state" \
        XDG_DATA_HOME="$base/$name/data" XDG_RUNTIME_DIR="$base/$name/run" "$@"
}

prepare() {
    umask 077
    config=$base/$1/config/opsmesh
    mkdir -p "$config/secrets" "$base/$1/state" "$base/$1/data" "$base/$1/run"
    for file in config.yaml profiles.yaml; do
        test -e "$config/$file" || cp "$here/$1/$file" "$config/$file"
    done
    for token in desk workshop; do
        cp "$base/token-of-$token" "$config/secrets/token-of-$token"
    done
}

case ${1:-} in
up)
    umask 077
    mkdir -p "$base/work"
    for token in desk workshop; do
        test -e "$base/token-of-$token" ||
            head -c 24 /dev/urandom | base64 >"$base/token-of-$token"
    done
    for name in desk workshop; do
        prepare $name
        in_mesh $name opsmesh up --detach
    done
    ;;
down)
    for name in desk workshop; do
        in_mesh $name opsmesh down
    done
    ;;
desk | workshop) in_mesh "$@" ;;
*)
    sed -n '2,5s/^# *//p' "$0"
    exit 2
    ;;
esac
