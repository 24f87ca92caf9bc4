"""The frames of the Language Server Protocol: header lines, an empty one, a body of known length.

Both directions of both halves (relay, observer) read frames here. The one rule: a stream that
breaks the rules is somebody else's, and reading it stops with Broken; its bytes are never changed.
Builtins only: the relay imports this module.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: The longest header that is looked at, bytes: real ones have 20 to 80.
LONGEST_HEADER = 4096
#: Ends a header.
_END = b"\r\n\r\n"
#: Begins every header that the specification knows.
_CONTENT = b"content-"


class Broken(ValueError):
    """What came is no frame."""


def header(data: bytes, start: int = 0) -> tuple[int, int] | None:
    """Where the body of the frame at `start` begins, and its length; None when more is needed."""
    end = data.find(_END, start, start + LONGEST_HEADER)
    if end < 0:
        if len(data) - start >= LONGEST_HEADER:
            raise Broken(f"no header ends within {LONGEST_HEADER} bytes")
        if not _CONTENT.startswith(begun := data[start : start + len(_CONTENT)].lower()):
            # not to be waited for: a greeting, JSON, the rest of something
            raise Broken(f"a header begins with {begun!r}")
        return None
    length = -1
    for line in data[start:end].split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            raise Broken(f"a header line is {line[:40]!r}")
        if name.strip().lower() == b"content-length":
            if not value.strip().isdigit():
                raise Broken(f"a length is {value[:40]!r}")
            length = int(value)
    if length < 0:
        raise Broken("a header has no Content-Length")
    return end + len(_END), length


class Bodies:
    """The bodies in one direction of a stream that comes in pieces.

    Those longer than `longest` are passed over without being kept, and counted in `skipped`.
    """

    def __init__(self, longest: int) -> None:
        self.skipped = 0
        self._longest = longest
        self._parts: list[bytes] = []
        self._held = 0
        self._need = 0
        self._skip = 0
        self._seeking = False

    def gap(self) -> None:
        """Bytes are missing here: go on at the next header."""
        self._clear()
        self._skip = 0
        self._seeking = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that end within these bytes; Broken."""
        if self._skip:
            passed = min(self._skip, len(data))
            self._skip -= passed
            data = data[passed:]
        self._parts.append(data)
        self._held += len(data)
        if self._held < self._need:  # in the middle of a long one: joined once, at its end
            return
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._clear()
        at = 0
        if self._seeking:
            at = _next_header(data)
            if at < 0:
                self._keep(data[-LONGEST_HEADER:])
                return
            self._seeking = False
        while at < len(data):
            found = header(data, at)
            if found is None:
                break
            body, length = found
            if length > self._longest:
                self.skipped += 1
                self._skip = max(0, body + length - len(data))
                at = min(len(data), body + length)
            elif body + length > len(data):
                self._need = body + length - at
                break
            else:
                yield data[body : body + length]
                at = body + length
        self._keep(data[at:])

    def _keep(self, data: bytes) -> None:
        if data:
            self._parts, self._held = [data], len(data)

    def _clear(self) -> None:
        self._parts, self._held, self._need = [], 0, 0


def _next_header(data: bytes) -> int:
    """Where a header begins after a gap. Outside of its strings JSON has no such words, and within
    them no line break: what looks like one is one."""
    import re  # rarely needed, and not for nothing

    found = re.search(rb"Content-Length: *\d+\r\n(?:[^\r\n]+\r\n)*\r\n", data, re.IGNORECASE)
    return -1 if found is None else found.start()
