"""How Helix starts language servers that its user has not named: the most used ones.

Facts of Helix's own languages.toml (its master of July 2026), by the name they have there.
One that is not here goes behind the proxy as soon as the user's languages.toml has its `command`.
"""

from __future__ import annotations

from typing import Final

_STDIO: Final = ("--stdio",)

#: The name in Helix; the command, and its arguments.
DEFAULTS: Final[dict[str, tuple[str, ...]]] = {
    "ansible-language-server": ("ansible-language-server", *_STDIO),
    "astro-ls": ("astro-ls", *_STDIO),
    "basedpyright": ("basedpyright-langserver", *_STDIO),
    "bash-language-server": ("bash-language-server", "start"),
    "biome-lsp-proxy": ("biome", "lsp-proxy"),
    "clangd": ("clangd",),
    "clojure-lsp": ("clojure-lsp",),
    "cmake-language-server": ("cmake-language-server",),
    "dart": ("dart", "language-server", "--client-id=helix"),
    "deno": ("deno", "lsp"),
    "docker-compose-langserver": ("docker-compose-langserver", *_STDIO),
    "docker-langserver": ("docker-langserver", *_STDIO),
    "elixir-ls": ("elixir-ls",),
    "elm-language-server": ("elm-language-server",),
    "fish-lsp": ("fish-lsp", "start"),
    "gleam": ("gleam", "lsp"),
    "golangci-lint-lsp": ("golangci-lint-langserver",),
    "gopls": ("gopls",),
    "haskell-language-server": ("haskell-language-server-wrapper", "--lsp"),
    "helm_ls": ("helm_ls", "serve"),
    "hyprls": ("hyprls",),
    "intelephense": ("intelephense", *_STDIO),
    "jdtls": ("jdtls",),
    "jedi": ("jedi-language-server",),
    "just-lsp": ("just-lsp",),
    "kotlin-language-server": ("kotlin-language-server",),
    "lua-language-server": ("lua-language-server",),
    "markdown-oxide": ("markdown-oxide",),
    "marksman": ("marksman", "server"),
    "metals": ("metals",),
    "neocmakelsp": ("neocmakelsp", "stdio"),
    "nil": ("nil",),
    "nixd": ("nixd",),
    "ocamllsp": ("ocamllsp",),
    "omnisharp": ("OmniSharp", "--languageserver"),
    "perlnavigator": ("perlnavigator", *_STDIO),
    "pylsp": ("pylsp",),
    "pyrefly": ("pyrefly", "lsp"),
    "pyright": ("pyright-langserver", *_STDIO),
    "ruby-lsp": ("ruby-lsp",),
    "ruff": ("ruff", "server"),
    "rust-analyzer": ("rust-analyzer",),
    "solargraph": ("solargraph", "stdio"),
    "sourcekit-lsp": ("sourcekit-lsp",),
    "svelteserver": ("svelteserver", *_STDIO),
    "tailwindcss-ls": ("tailwindcss-language-server", *_STDIO),
    "taplo": ("taplo", "lsp", "stdio"),
    "terraform-ls": ("terraform-ls", "serve"),
    "texlab": ("texlab",),
    "tinymist": ("tinymist",),
    "tombi": ("tombi", "lsp"),
    "ty": ("ty", "server"),
    "typescript-language-server": ("typescript-language-server", *_STDIO),
    "vscode-css-language-server": ("vscode-css-language-server", *_STDIO),
    "vscode-eslint-language-server": ("vscode-eslint-language-server", *_STDIO),
    "vscode-html-language-server": ("vscode-html-language-server", *_STDIO),
    "vscode-json-language-server": ("vscode-json-language-server", *_STDIO),
    "vtsls": ("vtsls", *_STDIO),
    "vuels": ("vue-language-server", *_STDIO),
    "yaml-language-server": ("yaml-language-server", *_STDIO),
    "zls": ("zls",),
}
