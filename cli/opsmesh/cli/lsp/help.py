"""What `opsmesh lsp --help` says; loaded only when somebody asks."""

HELP = """\
Usage: opsmesh lsp [options] -- SERVER [ARGS ...]
       opsmesh lsp --list [--json]

Run a language server behind a proxy, for an editor: what is saved, the errors
that the server reports and formatting that fails become events. Every byte is
handed on at once; the exit code, signals and standard error are the server's.

  opsmesh lsp -- ruff server
  opsmesh lsp --editor helix --name pyright -- pyright-langserver --stdio
  opsmesh install helix         writes that into Helix's languages.toml

  --editor NAME   what events call the editor (default: what it says of itself)
  --name NAME     what events call the server (default: what it says of itself)
  --no-save       add nothing to the stream: without this a server that does not
                  ask for saves is said to, so that the editor tells of them
  --list          the proxies that run: their events, and what they could not tell
  --json          with --list, for programs
  --help          this text

Exit code: the server's; 127 when it is not found, 2 when the call is wrong.
"""
