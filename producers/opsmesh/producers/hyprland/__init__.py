"""Hyprland: workspaces, focus, monitors and reloads, from the compositor's event socket.

lines      what one line of the socket says, as a pure function
layout     the monitors as `j/monitors` tells them, and how two layouts differ
desk       what several lines say together: what is in front, what has the focus, what is news
instance   which compositor is alive, and waiting for one
reader     the thread that reads the event socket in a tight loop, and joins again
request    one question to the compositor, one short connection
producer   the loop: take, compare, emit, then remember
"""

from opsmesh.producers.hyprland.producer import Hyprland as Hyprland
