"""`opsmesh mcp`, and the settings that it reads and writes."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli
from tests.handlers.mcp_servers import configure, liar

from opsmesh.router.mcp_servers import imported_file
from opsmesh.router.settings import Settings

#: Assembled here: no secret stands in a file.
TOKEN = "-".join(("sk", "live", "a1B2c3D4e5F6g7H8"))


def desktop(folder: Path, **servers: Any) -> Path:
    """Another client's file."""
    path = folder / "desktop.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    return path


def test_ls(cli: Cli) -> None:
    """Every server with whether it answers, in which protocol, with how many tools; 1 for a dead
    one."""
    configure(liar=liar(tools=["echo", "num*"]), gone={"command": "no-such-program"})
    result = cli("mcp", "ls", "--json")
    assert result.exit_code == 1
    gone, good = json.loads(result.stdout)
    assert (good["server"], good["ready"], good["tools"]) == ("liar", "yes", 2)
    assert good["protocol"] == "2025-06-18"
    assert gone["error"].startswith("server 'gone' cannot be started: command 'no-such-program'")
    assert "liar" in cli("mcp", "ls").stdout


def test_no_servers(cli: Cli) -> None:
    """Without servers it says where they come from."""
    result = cli("mcp", "ls")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "opsmesh mcp import" in result.stderr


def test_tools(cli: Cli) -> None:
    """A stranger's description steers no terminal."""
    configure(liar=liar())
    shown = cli("mcp", "tools", "liar").stdout
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown
    [echo] = [
        one
        for one in json.loads(cli("mcp", "tools", "liar", "--json").stdout)
        if one["tool"] == "echo"
    ]
    assert echo["input_schema"]["required"] == ["text"]


def test_call(cli: Cli) -> None:
    """A call by hand shows the structured answer; arguments are JSON where they can be."""
    configure(liar=liar())
    assert json.loads(cli("mcp", "call", "liar", "echo", "--arg", "text=a=b").stdout) == {
        "text": "a=b"
    }
    wrong = cli("mcp", "call", "liar", "echo", "--arg", "text=3")
    assert wrong.exit_code == 1
    assert "argument 'text': 3 is not of type 'string'" in wrong.stderr
    lie = json.loads(cli("mcp", "call", "liar", "lie", "--json").stdout)
    assert (lie["kind"], lie["structured"]) == ("bad_result", {"n": "three", "more": 1})


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("call", "lair", "echo"), 3, "did you mean 'liar'?"),
        (("call", "liar", "ehco"), 1, "did you mean 'echo'?"),
        (("call", "liar", "echo", "--arg", "x"), 2, "--arg x: is not K=V"),
        (("call", "liar", "sleep", "--timeout", "5"), 2, "--timeout: "),
        (("call", "liar", "sleep", "--timeout", "200ms"), 1, "did not answer within 0.2 s"),
        (("tools", "lair"), 3, "did you mean 'liar'?"),
        (("import", "no-such-file.json"), 3, "no-such-file.json: No such file"),
    ],
)
def test_mistakes(cli: Cli, arguments: tuple[str, ...], code: int, said: str) -> None:
    """A mistake is a message with its exit code, and no traceback."""
    configure(liar=liar())
    result = cli("mcp", *arguments)
    assert result.exit_code == code
    assert said in result.stderr


def test_import(cli: Cli, tmp_path: Path) -> None:
    """Servers are taken over without their secrets, for their owner alone; what is said names the
    command that stores each."""
    file = desktop(
        tmp_path,
        git={"command": "uvx", "args": ["mcp-server-git"], "env": {"LEVEL": "x", "API_KEY": TOKEN}},
        web={"type": "http", "url": "https://x.example/mcp", "headers": {"Authorization": TOKEN}},
    )
    result = cli("mcp", "import", str(file), "--yes")
    assert result.exit_code == 0
    written = imported_file().read_text()
    assert TOKEN not in written + result.output
    assert stat.S_IMODE(imported_file().stat().st_mode) == 0o600
    servers = Settings().mcp_servers
    assert servers["git"].env == {"LEVEL": "x", "API_KEY": '${{ secret("git.API_KEY") }}'}
    assert servers["web"].headers == {"Authorization": '${{ secret("web.Authorization") }}'}
    assert "opsmesh secret set web.Authorization" in result.stderr


def test_import_asks(cli: Cli, tmp_path: Path) -> None:
    """Nothing is written without a yes."""
    file = desktop(tmp_path, git={"command": "uvx"})
    cli("mcp", "import", str(file), input="n\n")
    cli("mcp", "import", str(file), "--json")
    assert not imported_file().exists()
    cli("mcp", "import", str(file), input="y\n")
    assert imported_file().exists()


def test_import_again(cli: Cli, tmp_path: Path) -> None:
    """What was imported before stays as it is, unless it is to be replaced."""
    cli("mcp", "import", str(desktop(tmp_path, git={"command": "a"})), "--yes")
    other = str(desktop(tmp_path, git={"command": "b"}, more={"command": "c"}))
    told = json.loads(cli("mcp", "import", other, "--yes", "--json").stdout)
    assert [one["state"] for one in told["servers"]] == ["kept (--replace)", "new"]
    assert Settings().mcp_servers["git"].command == "a"
    cli("mcp", "import", other, "--yes", "--replace")
    assert {n: one.command for n, one in Settings().mcp_servers.items()} == {
        "git": "b",
        "more": "c",
    }


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ({"command": "x", "args": [f"--password={TOKEN}", "ghp_" + "a1B2" * 9]}, "args["),
        ({"command": "x", "args": ["${workspaceFolder}"]}, "args[0] holds a ${…}"),
        ({"command": "x", "env": {"A": "${input:a}"}}, "A holds a ${…}"),
        ({"type": "sse", "url": "https://x.example"}, "speaks the old HTTP+SSE"),
        ({"command": "x", "disabled": True}, "is disabled"),
        ({"command": "x", "url": "https://x.example"}, "needs either command"),
        ({"command": "x", "volumes": []}, "volumes: "),
        ("x", "is no mapping"),
    ],
)
def test_import_leaves_out(cli: Cli, tmp_path: Path, server: Any, reason: str) -> None:
    """What cannot be taken over safely is left out, with the reason."""
    told = json.loads(
        cli("mcp", "import", str(desktop(tmp_path, a=server)), "--yes", "--json").stdout
    )
    assert told["servers"] == []
    assert told["left_out"]["a"].startswith(reason)
    assert not imported_file().exists()


def test_settings_win(cli: Cli, tmp_path: Path) -> None:
    """A name in config.yaml is config.yaml's as a whole; a broken imported file is named."""
    cli("mcp", "import", str(desktop(tmp_path, a={"command": "x", "args": ["y"]})), "--yes")
    configure(a={"url": "http://127.0.0.1:1/mcp"})
    assert Settings().mcp_servers["a"].args == []
    imported_file().write_text("[]")
    result = cli("config", "validate")
    assert result.exit_code == 1
    assert "mcp_servers.json: has no mapping 'mcpServers'" in result.stderr


def test_config_show(cli: Cli) -> None:
    """`config show` shows no env and no headers."""
    configure(a={"command": "x", "env": {"KEY": TOKEN}})
    shown = cli("config", "show").stdout
    assert TOKEN not in shown
    assert "mcp_servers" in shown


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"comand": "x"}, "unknown key 'comand'; did you mean 'command'?"),
        ({"url": "ftp://x"}, "must be an http:// or https:// address"),
        ({"url": "http://me:pass@x"}, "must not hold a user or a password"),
        ({"command": "x", "headers": {"A": "b"}}, "headers does not go with command"),
        ({"command": "x", "env": {"A B": "b"}}, "'A B' is no name of an environment variable"),
        ({"url": "http://x", "headers": {"A": "b\nC: d"}}, "holds a control character"),
        ({"command": "x", "timeout": "0s"}, "timeout"),
        ({"command": "x", "env": {"A": "${{ event.x }}"}}, "'A': a secret is the whole value"),
        ({"url": "http://x", "headers": {"A": 'B ${{ secret("c") }}'}}, "'A': a secret is the"),
    ],
)
def test_wrong_settings(cli: Cli, server: dict[str, Any], said: str) -> None:
    """A wrong server is named with its line."""
    configure(a=server)
    result = cli("config", "validate")
    assert result.exit_code == 1
    assert said in result.stderr
    assert "config.yaml:" in result.stderr


def profiles(text: str) -> str:
    """A profile file of this test."""
    path = configure(liar=liar(tools=["echo"])).with_name("profiles.yaml")
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("step", "more", "code", "said"),
    [
        ("{server: lair, tool: echo}", "", 0, "server 'lair' is not in mcp_servers"),
        ("{server: liar, tool: fails}", "", 1, "tool 'fails' is not among the tools"),
        ("{server: liar, tool: echo}", "tools: [other/*]", 1, "liar/echo is not among the 'tools'"),
        ("{server: liar, tool: echo}", 'tools: ["liar/ec*"]', 0, ""),
        ("{server: liar, tool: echo, onn: {}}", "", 1, "did you mean 'on'?"),
        ("{server: liar, tool: echo, result: service.start.failed}", "", 1, "loop: "),
    ],
)
def test_validate(cli: Cli, step: str, more: str, code: int, said: str) -> None:
    """`profile validate` names servers and tools that cannot be called, and loops through them."""
    path = profiles(
        "version: 1\nprofiles:\n  p:\n    on: service.start.failed\n"
        f"    {more}\n    actions:\n      - mcp: {step}\n"
    )
    result = cli("profile", "validate", path)
    assert said in result.output
    assert result.exit_code == code, result.output
