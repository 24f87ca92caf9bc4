#!/bin/sh
# The command `opsmesh`: finds the Python that it was installed for, and starts it.
#
# What tools call takes the short road: no `site` (-S) and nothing of the environment's PYTHON* (-I),
# which is a fourth of Python's own start, and only the few folders that it is imported from.
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

roots=
case $1 in
emit) roots='/cli /router' ;;
agent-hook) roots='/cli /router /producers' ;;
lsp) roots='/cli /router /producers /schemas' ;;
esac
if [ -n "$roots" ]; then
    exec "$python" -I -S -c '
import sys
lib, roots, command = sys.argv[1], tuple(sys.argv[2].split()), sys.argv[3]
try:  # an editable installation: the roots of the checkout
    with open(lib + "/_opsmesh.pth", encoding="utf-8") as file:
        sys.path[:0] = [root for root in file.read().split("\n") if root.endswith(roots)]
except FileNotFoundError:
    sys.path.insert(0, lib)
if command == "emit":
    from opsmesh.cli.emit.command import run
elif command == "lsp":
    from opsmesh.cli.lsp.command import run
else:
    from opsmesh.cli.agent_hook.command import run
run(sys.argv[4:])
' "$lib" "$roots" "$@"
fi
exec "$python" -P -m opsmesh.cli.entry "$@"
