"""The systemd journal: units that fail, flap or are throttled, core dumps, and OOM kills.

entry       the fields of one journal entry, as text and numbers
kernel      the kernel's lines when memory runs out
classify    what one journal entry says, as a pure function
tracker     what several entries say together: one event a failure, restarts in a window
reader      journalctl as a child process, restarted when it dies
position    the cursor on disk, and whether the journal still holds it
producer    the loop: read, classify, emit, then remember how far
"""

from opsmesh.producers.journal.producer import Journal as Journal
