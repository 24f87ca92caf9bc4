"""The extension as a .vsix: a zip by hand, the same bytes wherever it is made.

The version is opsmesh's; package.json in the sources says 0.0.0. Stored, not compressed: zlib's
output differs from one build of it to the next, and an installation is compared byte for byte.
`python -m opsmesh.producers.vscode.vsix FOLDER` writes one (`make vsix`).
"""

from __future__ import annotations

import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

#: What the extension is called: publisher and name.
IDENTITY: Final = "opsmesh.opsmesh"
#: What of its folder is packed.
PARTS: Final = ("package.json", "README.md", "CHANGELOG.md", "LICENSE", "src")
#: When every file of it was made, as a zip can say.
THEN: Final = (1980, 1, 1, 0, 0, 0)

_PEP440: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(.*)")
_TYPES: Final = {
    ".vsixmanifest": "text/xml",
    ".json": "application/json",
    ".js": "application/javascript",
    ".md": "text/markdown",
}
_ASSETS: Final = {
    "Microsoft.VisualStudio.Code.Manifest": "package.json",
    "Microsoft.VisualStudio.Services.Content.Details": "README.md",
    "Microsoft.VisualStudio.Services.Content.Changelog": "CHANGELOG.md",
    "Microsoft.VisualStudio.Services.Content.License": "LICENSE",
}


def source() -> Path:
    """The extension's folder: beside this file in a wheel, under `packages` in a checkout."""
    here = Path(__file__).with_name("extension")
    return here if here.is_dir() else Path(__file__).parents[4] / "packages/vscode-opsmesh"


def pack(folder: Path | None = None, *, release: str | None = None) -> bytes:
    """The .vsix of the extension in this folder. FileNotFoundError when a part is missing."""
    folder = folder or source()
    manifest = json.loads((folder / "package.json").read_bytes())
    manifest["version"] = semver(release or version("opsmesh"))
    for name in ("private", "scripts"):
        manifest.pop(name, None)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        _put(archive, "extension.vsixmanifest", _vsixmanifest(manifest).encode())
        _put(archive, "[Content_Types].xml", _content_types().encode())
        for path in _files(folder):
            data = path.read_bytes()
            if path.name == "package.json":
                data = json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n"
            _put(archive, f"extension/{path.relative_to(folder)}", data)
    return packed.getvalue()


def semver(release: str) -> str:
    """A version of Python's as npm writes it: 1.2.0.dev3 is 1.2.0-dev3."""
    found = _PEP440.match(release)
    if found is None:
        raise ValueError(f"{release!r} is no version")
    major, minor, patch, rest = found.groups()
    rest = re.sub(r"[^0-9A-Za-z]+", "-", rest).strip("-")
    return f"{major}.{minor}.{patch or 0}" + (f"-{rest}" if rest else "")


def _files(folder: Path) -> Iterator[Path]:
    for part in PARTS:
        path = folder / part
        yield from sorted(path.glob("*.js")) if path.is_dir() else (path,)


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, THEN)
    entry.create_system, entry.external_attr = 3, 0o100644 << 16
    archive.writestr(entry, data, zipfile.ZIP_STORED)


def _vsixmanifest(manifest: dict[str, Any]) -> str:
    """What VS Code's installer reads first (schema vsx-schema/2011, as its packer writes it)."""
    name, publisher = quoteattr(manifest["name"]), quoteattr(manifest["publisher"])
    kind = ",".join(manifest["extensionKind"])
    properties = {
        "Microsoft.VisualStudio.Code.Engine": manifest["engines"]["vscode"],
        "Microsoft.VisualStudio.Code.ExtensionKind": kind,
        "Microsoft.VisualStudio.Code.EnabledApiProposals": ",".join(
            manifest.get("enabledApiProposals", ())
        ),
    }
    told = "".join(
        f'\n      <Property Id="{key}" Value={quoteattr(value)}/>'
        for key, value in properties.items()
    )
    assets = "".join(
        f'\n    <Asset Type="{key}" Path="extension/{path}" Addressable="true"/>'
        for key, path in _ASSETS.items()
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
<PackageManifest Version="2.0.0" xmlns="http://schemas.microsoft.com/developer/vsx-schema/2011">
  <Metadata>
    <Identity Language="en-US" Id={name} Version="{manifest["version"]}" Publisher={publisher}/>
    <DisplayName>{escape(manifest["displayName"])}</DisplayName>
    <Description xml:space="preserve">{escape(manifest["description"])}</Description>
    <Tags>{escape(",".join(manifest["keywords"]))}</Tags>
    <Categories>{escape(",".join(manifest["categories"]))}</Categories>
    <License>extension/LICENSE</License>
    <Properties>{told}
    </Properties>
  </Metadata>
  <Installation>
    <InstallationTarget Id="Microsoft.VisualStudio.Code"/>
  </Installation>
  <Dependencies/>
  <Assets>{assets}
  </Assets>
</PackageManifest>
"""


def _content_types() -> str:
    rows = "".join(
        f'<Default Extension="{ending}" ContentType="{kind}"/>' for ending, kind in _TYPES.items()
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<Types xmlns="http://schemas.openxmlformats.org/'
        f'package/2006/content-types">{rows}<Override PartName="/extension/LICENSE" '
        'ContentType="text/plain"/></Types>\n'
    )


def main(argv: list[str]) -> None:
    """Write the .vsix into a folder, and say where."""
    path = Path(argv[0], f"opsmesh-{semver(version('opsmesh'))}.vsix")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack())
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:] or ["dist"])
