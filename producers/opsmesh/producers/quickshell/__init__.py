"""Quickshell: a QML singleton that speaks to the agent's socket, and where it is put."""

from __future__ import annotations

from opsmesh.producers.quickshell.wiring import Quickshell

__all__ = ["Quickshell"]
