"""file.*: what the file manager did. Ground: Yazi's data distribution service (`ya sub`)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from opsmesh.schemas.topics import Payload, Topic, doc


class FilePair(Payload, frozen=True, kw_only=True):
    """One file's way."""

    src: Annotated[str, doc("path before")]
    dst: Annotated[str, doc("path after")]


_Instance = Annotated[str | None, doc("id of the file manager's instance")]


class FileBatchCompleted(Payload, frozen=True, kw_only=True):
    """One operation on more than one file came to its end."""

    operation: Annotated[
        Literal["rename", "move", "copy", "delete", "trash"], doc("what was done to the files")
    ]
    count: Annotated[int, doc("number of files")]
    items: Annotated[list[FilePair] | None, doc("each file's way, for rename, move, copy")] = None
    paths: Annotated[list[str] | None, doc("the files, for delete and trash")] = None
    instance: _Instance = None


class FilePathAccessDenied(Payload, frozen=True, kw_only=True):
    """A folder could not be read."""

    path: Annotated[str, doc("folder that could not be read")]
    errno: Annotated[int | None, doc("the system's error number: 13 EACCES, 1 EPERM")] = None
    message: Annotated[str | None, doc("error text")] = None
    instance: _Instance = None


class FileOpDelete(Payload, frozen=True, kw_only=True):
    """Files were deleted, or put into the trash."""

    paths: Annotated[list[str], doc("files that are gone")]
    trash: Annotated[bool | None, doc("true when they lie in the trash")] = None
    instance: _Instance = None


class FileOpMove(Payload, frozen=True, kw_only=True):
    """Files were moved or renamed."""

    items: Annotated[list[FilePair], doc("each file's way")]
    rename: Annotated[bool | None, doc("true for a new name in the same folder")] = None
    instance: _Instance = None


class FileOpCopy(Payload, frozen=True, kw_only=True):
    """Files were copied."""

    items: Annotated[list[FilePair], doc("each file's way")]
    instance: _Instance = None


TOPICS: Final = (
    Topic(
        "file.batch.completed",
        payload=FileBatchCompleted,
        owner="yazi",
        severity="info",
        description="One operation on more than one file came to its end.",
        example={
            "operation": "rename",
            "count": 2,
            "items": [
                {"src": "/home/dev/work/1", "dst": "/home/dev/work/bulk-1"},
                {"src": "/home/dev/work/2", "dst": "/home/dev/work/bulk-2"},
            ],
        },
    ),
    Topic(
        "file.path.access.denied",
        payload=FilePathAccessDenied,
        owner="yazi",
        severity="warn",
        description="A folder could not be read.",
        example={"path": "/home/dev/work/private", "errno": 13, "message": "Permission denied"},
    ),
    Topic(
        "file.op.delete",
        payload=FileOpDelete,
        owner="yazi",
        severity="info",
        description="Files were deleted, or put into the trash.",
        example={"paths": ["/home/dev/work/d.txt"], "trash": True},
    ),
    Topic(
        "file.op.move",
        payload=FileOpMove,
        owner="yazi",
        severity="info",
        description="Files were moved or renamed.",
        example={"items": [{"src": "/home/dev/work/c.txt", "dst": "/home/dev/work/dst/c.txt"}]},
    ),
    Topic(
        "file.op.copy",
        payload=FileOpCopy,
        owner="yazi",
        severity="info",
        description="Files were copied.",
        example={"items": [{"src": "/home/dev/work/b.txt", "dst": "/home/dev/work/dst/b.txt"}]},
    ),
)
