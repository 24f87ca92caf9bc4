"""Yazi, the file manager: what it moved, copied and deleted, and where it was not let in.

dds          Yazi's data distribution service: where its socket is, and one line of `ya sub`
facts        what one message says, as a pure function
subscriber   `ya sub` as a child process in a thread, there while a Yazi is
producer     the loop: take, emit, remember
"""

from opsmesh.producers.yazi.producer import Yazi as Yazi
