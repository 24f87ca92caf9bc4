"""Our plug-ins for other people's environments, as files that can be put into reach of a Python.

A folder with them on `sys.path` is as good as an installation: the package, and metadata by which a
tool finds its entry points. Only source: each Python compiles it for itself.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Final

#: What a package's own files end with.
SUFFIXES: Final = (".py", "py.typed")


def files(name: str) -> dict[str, bytes]:
    """The files of a distribution of ours, by their paths below the folder. OSError when it is not
    installed beside opsmesh."""
    package = name.replace("-", "_")
    try:
        points = distribution(name).read_text("entry_points.txt") or ""
        spec = find_spec(package)
    except PackageNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise OSError(f"{name} is not installed beside opsmesh")
    source = Path(spec.origin).parent
    found = {}
    # a folder that is a link in a checkout counts as what it is elsewhere
    for folder, _, names in os.walk(source, followlinks=True):
        for one in names:
            if one.endswith(SUFFIXES):
                path = Path(folder, one)
                found[f"{package}/{path.relative_to(source)}"] = path.read_bytes()
    # always of one version: an older one's must not be found beside it; and of another name than
    # the distribution's, or pip would take that for installed and not install it
    info = f"{package}_bridge-1.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}-bridge\nVersion: 1\n"
    found[f"{info}/METADATA"] = about.encode()
    found[f"{info}/entry_points.txt"] = points.encode()
    return found
