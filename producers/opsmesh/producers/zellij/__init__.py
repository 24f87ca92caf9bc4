"""Zellij, the terminal multiplexer: its sessions, their layout, and command panes that failed.

places       where Zellij keeps its sockets and what it writes of each session
metadata     what it writes of a session: tabs and panes, out of its KDL
sessions     which sessions live, and which process is each one's server
changes      what is another than it was, as a pure function
producer     the loop: wait, look, emit, remember
"""

from opsmesh.producers.zellij.producer import Zellij as Zellij
