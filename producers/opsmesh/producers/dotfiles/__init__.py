"""Dotfiles under chezmoi, yadm, stow or plain git: changes of the source, drift, and applying.

sources   which folders are dotfiles, and under what tool
snapshot  what lies in a source, and what is another since the last look
notices   inotify for all sources: that something changed, never what
ask       a question to a tool: with a time limit, in nobody's way
drift     what each tool says is not as the source has it
memory    what was told, and what is being told
producer  the loop: wait, settle, compare, tell
apply     `opsmesh dotfiles apply`: the checks, then the command, and its outcome
wiring    yadm's hooks
"""

from opsmesh.producers.dotfiles.producer import Dotfiles as Dotfiles
