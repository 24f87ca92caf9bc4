#!/bin/sh
# The command `opsmesh`: finds the Python that it was installed for, and starts it.
#
# `emit` takes the short road: no `site` (-S) and nothing of the environment's PYTHON* (-I), which
# is a fourth of Python's own start, and only the one or two folders that `emit` is imported from.
# A wheel's own script could not ask for that: installers write `#!…/python` without options, and
# some of them import `re` before anything of ours runs.

file=$0
if [ -h "$file" ]; then file=$(readlink -f -- "$file"); fi # a link in ~/.local/bin, as pipx makes it
case $file in */*) bin=${file%/*} ;; *) bin=. ;; esac

python=
for lib in "$bin"/../lib/python3.*/site-packages "$bin"/../lib/python3.*/dist-packages; do
    if [ -f "$lib/opsmesh/cli/entry.py" ] || [ -f "$lib/_opsmesh.pth" ]; then
        version=${lib%/*}
        version=${version##*/}
        if [ -x "$bin/$version" ]; then
            python=$bin/$version
        else
            python=$(command -v "$version") || continue # a user's own folder: ~/.local/lib
        fi
        break
    fi
done

if [ -z "$python" ]; then # an unusual layout: the Python beside us, or the one of the PATH
    python=$bin/python3
    if [ ! -x "$python" ]; then python=python3; fi
    exec "$python" -P -m opsmesh.cli.entry "$@"
fi

if [ "$1" = emit ]; then
    shift
    exec "$python" -I -S -c '
import sys
lib = sys.argv[1]
try:  # an editable installation: the roots of the checkout
    with open(lib + "/_opsmesh.pth", encoding="utf-8") as file:
        sys.path[:0] = [root for root in file.read().split("\n") if root.endswith(("/cli", "/router"))]
except FileNotFoundError:
    sys.path.insert(0, lib)
from opsmesh.cli.emit import run
run(sys.argv[2:])
' "$lib" "$@"
fi
exec "$python" -P -m opsmesh.cli.entry "$@"
