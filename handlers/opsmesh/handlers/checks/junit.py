"""pytest's own report (JUnit XML of the family xunit1) as facts: counts, and each failure with its
nodeid. Pure. What stands in it was written by the tests: text, and bounded.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Final

#: Bytes of a report that are read; a larger one is said to be too large.
MAX_REPORT: Final = 16 * 2**20
#: Failures that are told.
MAX_FAILURES: Final = 50
#: Characters of a failure's message and of its text, from the end.
MAX_MESSAGE: Final = 500
MAX_TEXT: Final = 4000


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One test that did not pass."""

    nodeid: str
    kind: str
    message: str
    text: str


@dataclass(kw_only=True)
class Summary:
    """What the run was."""

    passed: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)


def read(data: bytes) -> Summary:
    """The report's facts; ValueError when it is none."""
    try:
        root = ET.fromstring(data)  # noqa: S314 (bounded; expat limits what entities may grow to)
    except ET.ParseError as error:
        raise ValueError(f"the report cannot be read: {error}") from None
    found = Summary()
    for case in root.iter("testcase"):
        told = next((one for one in case if one.tag in ("failure", "error", "skipped")), None)
        if told is None:
            found.passed += 1
        elif told.tag == "skipped":
            found.skipped += 1
        else:
            kind = "failed" if told.tag == "failure" else "error"
            found.failed += kind == "failed"
            found.errors += kind == "error"
            if len(found.failures) < MAX_FAILURES:
                found.failures.append(
                    Failure(
                        nodeid=nodeid(case.attrib),
                        kind=kind,
                        message=told.get("message", "")[:MAX_MESSAGE],
                        text=(told.text or "")[-MAX_TEXT:],
                    )
                )
    return found


def nodeid(case: dict[str, str]) -> str:
    """The id that pytest takes: file, classes and name. The report has module and classes in one
    text with dots."""
    file, classname, name = (case.get(key, "") for key in ("file", "classname", "name"))
    if not file:  # a file that could not be collected stands in its name
        return name or classname
    module = file.removesuffix(".py").replace("/", ".")
    classes = classname.removeprefix(module).strip(".")
    return "::".join([file, *(part for part in classes.split(".") if part), name])
