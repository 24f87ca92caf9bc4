"""Coding agents: Codex's sessions, followed in its own files (`codex`), and any agent that calls a
hook (`hooks`, which `opsmesh agent-hook` asks).

Metadata only. Prompts, answers and output are read past, and never put into an event; what is
published of a command is a policy (`words`).
"""
