"""What `opsmesh emit --help` says; loaded only when somebody asks."""

HELP = """\
Usage: opsmesh emit TOPIC [KEY=TEXT ...] [KEY:=JSON ...] [options]

Send one event; its id goes to standard output. Works without an agent and
without a broker: the event then waits on disk until there is one.

  opsmesh emit python.lint.failed tool=ruff count:=3
  opsmesh emit notes.saved --payload @note.json --wait

A KEY=TEXT becomes the number or truth value that the topic wants; KEY:=JSON is
taken as it stands.

  --payload JSON    the payload as one object; - reads standard input, @FILE a
                    file; KEY=TEXT and KEY:=JSON are added to it
  --severity S      info, warn, error or critical (default: the topic's own)
  --correlation ID  the story it belongs to (default: $OPSMESH_CORRELATION_ID,
                    else a new one)
  --causation ID    the event that caused it (default: $OPSMESH_EVENT_ID)
  --workspace W     the project or folder (default: $OPSMESH_WORKSPACE, else the git root)
  --component C     the part of the source that speaks (default: cli)
  --source S        who speaks (default: emit)
  --id ID           its id (default: a new UUIDv7); the same id is stored once
  --wait [SECONDS]  succeed only once the broker has stored it (default: 5)
  -q, --quiet       print nothing but errors
  --json            print the answer as JSON
  --help            this text

Exit codes: 0 sent or safe on disk, 2 wrong call, 65 the event is wrong,
74 it could not be kept, 75 --wait: safe on disk, not stored by the broker yet
"""
