"""The hooks in real interactive shells, in tmux; the producer is not needed for what they write."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from tests.producers.agent import until
from tests.producers.shells import LAST, need, place, terminal, told, wire, written

from opsmesh.producers.shell.wiring import hook

SHELLS = ("bash", "zsh", "fish")
BASH_PREEXEC = os.environ.get("OPSMESH_BASH_PREEXEC", "")

#: What bash-preexec sets up, in its form: PROMPT_COMMAND enclosed, a DEBUG trap, two arrays.
PREEXEC_STAND_IN = r"""
__bp_precmd_invoke_cmd() { local s=$? f; for f in "${precmd_functions[@]}"; do
    (exit $s); $f; done; }
__bp_interactive_mode() { __bp_mode=on; }
__bp_preexec_invoke_exec() {
    [[ ${__bp_mode-} ]] || return
    __bp_mode=; local f; for f in "${preexec_functions[@]}"; do $f "$(history 1)"; done
}
__bp_install() {
    trap '__bp_preexec_invoke_exec "$_"' DEBUG
    PROMPT_COMMAND=${PROMPT_COMMAND//__bp_install/:}
    PROMPT_COMMAND='__bp_precmd_invoke_cmd "$_"'$'\n'$PROMPT_COMMAND
    PROMPT_COMMAND+=(__bp_interactive_mode)
}
PROMPT_COMMAND=${PROMPT_COMMAND:+$PROMPT_COMMAND;}__bp_install
"""
#: Two functions of a user's in those arrays.
PREEXEC_USER = r"""
seen_pre() { echo "pre" >>$HOME/seen; }
seen_post() { echo "post $?" >>$HOME/seen; }
preexec_functions+=(seen_pre) precmd_functions+=(seen_post)
"""
#: What starship's init does in bash: its DEBUG trap, and its function at the end of PROMPT_COMMAND.
STARSHIP_REPLAY = r"""
star_preexec() {
    [[ ${PREEXEC_READY-} != true ]] || { PREEXEC_READY=false; echo pre >>$HOME/seen; }
}
star_precmd() {
    local STATUS=$? PIPE="${PIPESTATUS[*]}"; echo "post $STATUS ($PIPE)" >>$HOME/seen
    PS1='READY> '; PREEXEC_READY=true
}
trap 'star_preexec "$_"' DEBUG
if [[ -z $PROMPT_COMMAND ]]; then PROMPT_COMMAND=star_precmd
else PROMPT_COMMAND="${PROMPT_COMMAND%;};star_precmd;"; fi
"""


def hostile(amount: int, *, seed: int = 5) -> list[bytes]:
    """Texts of every byte but zero, which no command line can hold."""
    rng = random.Random(seed)
    awkward = [
        b'"',
        b"\\",
        b"\n",
        b"\t",
        b"&",
        b"*",
        b"%s",
        b"$(x)",
        b"`",
        b"'",
        "é𝄞\u2028".encode(),
    ]
    texts = [bytes([byte]) for byte in range(1, 256)]
    while len(texts) < amount:
        parts = [
            rng.choice(awkward) if rng.random() < 0.6 else bytes([rng.randrange(1, 256)])
            for _ in range(rng.randrange(1, 12))
        ]
        texts.append(b"".join(parts))
    return texts


@pytest.mark.parametrize("shell", SHELLS)
def test_what_fails_is_written_and_what_succeeds_is_not(home: Path, shell: str) -> None:
    """A failure, its text, time, place and folder; success, an empty line, a job are silent."""
    need("tmux", shell)
    wire(home, shell)
    folder = place()
    with terminal(home, shell, ZELLIJ_SESSION_NAME="dev", ZELLIJ_PANE_ID="3") as pane:
        pane.type("true", "false", "", "false | true", "true | false", "sh -c 'exit 3' &")
        pane.type(f"cd {home}; sh -c 'sleep 0.1; exit 7'", " false", "echo 'a", "b\"\\x'; false")
        pane.type("no-such-command-é", LAST)
        lines = told(folder)
    assert [(line["exit"], line["command"]) for line in lines] == [
        (1, "false"),
        (1, "true | false"),
        (7, f"cd {home}; sh -c 'sleep 0.1; exit 7'"),
        (1, ""),
        (1, "echo 'a\nb\"\\x'; false"),
        (127, "no-such-command-é"),
    ]
    slow = lines[2]
    assert 90_000 < slow["us"] < 60_000_000
    assert slow["cwd"] != str(home)
    assert lines[3]["cwd"] == str(home)
    assert slow["tty"].startswith("/dev/pts/")
    assert (slow["ZELLIJ_SESSION_NAME"], slow["ZELLIJ_PANE_ID"]) == ("dev", "3")
    assert slow["TMUX_PANE"] == "%0"
    assert (folder.stat().st_mode & 0o777) == 0o700


@pytest.mark.parametrize("shell", SHELLS)
def test_an_interrupt_is_130_and_a_syntax_error_is_silent(home: Path, shell: str) -> None:
    """Ctrl-C in a command is written, for the producer to judge; at the prompt it is not."""
    need("tmux", shell)
    wire(home, shell)
    folder = place()
    with terminal(home, shell) as pane:
        pane.press("C-c")

        def listens() -> bool:  # a shell throws away what is typed before it has seen Ctrl-C
            pane.type("echo ag''ain")
            return "\nagain" in pane.screen()

        until(listens)
        # of a line that was typed too early a part may have been run, and have failed; a line that
        # was typed once more may still be to come
        pane.type("echo se''ttled")
        pane.shows("\nsettled")
        before = len(written(folder))
        pane.type("sh -c 'echo sta\"\"rted; sleep 30'")
        pane.shows("\nstarted")
        pane.press("C-c")
        until(lambda: len(written(folder)) == before + 1)
        if shell != "fish":  # fish does not leave a line that it cannot parse
            pane.type("fi")
        pane.type(LAST)
        assert [line["exit"] for line in told(folder)][before:] == [130]


@pytest.mark.parametrize("shell", SHELLS)
def test_without_an_inbox_or_without_room_the_prompt_is_silent(home: Path, shell: str) -> None:
    """No folder, one that takes nothing: no message; once there is room, the lost are counted."""
    need("tmux", shell)
    wire(home, shell)
    with terminal(home, shell) as pane:
        pane.type("false", "echo fi''rst")
        pane.shows("\nfirst")
        folder = place()
        if shell != "fish":  # it would say on the terminal that it cannot open the file
            pane.type(
                "keep=$__opsmesh_name; __opsmesh_name=none/x", "false", "__opsmesh_name=$keep"
            )
        pane.type(LAST)
        assert told(folder) == []
        assert written(folder)[0]["lost"] == (0 if shell == "fish" else 1)
        screen = pane.screen()
    assert "none/x/" not in screen
    assert "opsmesh/" not in screen


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_with_every_strict_option_goes_on(home: Path, shell: str) -> None:
    """nounset, noclobber, xtrace, functrace, odd IFS: nothing breaks, and the trace is not ours."""
    need("tmux", shell)
    wire(home, shell)
    folder = place()
    functrace = "set -o functrace; trap 'dbg=$((dbg+1))' DEBUG" if shell == "bash" else ":"
    with terminal(home, shell) as pane:
        pane.type("IFS=01a/", "dbg=0", functrace, "set -u", "set -C", "set -x", "false")
        pane.type("set -e", "! true || :", "(exit 4) || sh -c 'echo al\"\"ive'")
        pane.shows("\nalive")
        pane.type("set +e", LAST)
        lines = told(folder)
        screen = pane.screen()
    assert [line["command"] for line in lines] == ["false"]
    assert "history" not in screen
    assert "LC_ALL" not in screen


def test_bash_repeated_and_private_commands(home: Path) -> None:
    """Where the history cannot tell a repeated command from a private one, the text is left out."""
    need("tmux", "bash")
    wire(home, "bash", before="HISTCONTROL=ignoreboth")
    folder = place()
    with terminal(home, "bash") as pane:
        pane.type("false", "false", " token=1 false; false", "HISTCONTROL=ignoredups")
        pane.type("false", "false", LAST)
        assert [line["command"] for line in told(folder)] == ["false", "", "", "false", "false"]


def test_bash_does_not_take_another_shell_s_command_for_its_own(home: Path) -> None:
    """Where PROMPT_COMMAND reads others' commands into the history, the text is left out."""
    need("tmux", "bash")
    wire(home, "bash", before="PROMPT_COMMAND='eval \"$more\"'")
    folder = place()
    with terminal(home, "bash") as pane:
        pane.type("false", "more='history -s sudo something'", "sh -c 'exit 4'", "more=", LAST)
        assert [(line["exit"], line["command"]) for line in told(folder)] == [(1, "false"), (4, "")]


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("other", ["preexec stand-in", "bash-preexec", "starship replay", "user"])
def test_bash_leaves_others_what_is_theirs(home: Path, other: str, order: str) -> None:
    """Hooks of others, loaded before or after ours, see each command once, with its own status."""
    need("tmux", "bash")
    preexec = {"preexec stand-in": PREEXEC_STAND_IN, "starship replay": STARSHIP_REPLAY}
    text = preexec.get(other, "")
    if other == "bash-preexec":
        if not BASH_PREEXEC:
            pytest.skip("OPSMESH_BASH_PREEXEC names no bash-preexec.sh (rcaloras/bash-preexec)")
        text = Path(BASH_PREEXEC).read_text()
    if "preexec" in other:
        text += PREEXEC_USER
    if other == "user":
        text = "PROMPT_COMMAND='echo \"post $?\" >>$HOME/seen'; trap 'last=$BASH_COMMAND' DEBUG"
    wire(home, "bash", **{order: text})
    folder = place()
    with terminal(home, "bash") as pane:
        pane.type("echo >$HOME/seen", "sh -c 'exit 5' | sh -c 'exit 6'", "true", LAST)
        lines = told(folder)
        until(lambda: "post 99" in (home / "seen").read_text())
        pane.type("trap -p DEBUG | tr -d \\\\n; echo .")
        pane.shows("trap -- ")
    assert [(line["exit"], line["command"]) for line in lines] == [
        (6, "sh -c 'exit 5' | sh -c 'exit 6'")
    ]
    seen = (home / "seen").read_text()
    assert [word for word in seen.split() if word.isdecimal()][:3] == ["0", "6", "0"]
    if other == "starship replay":
        assert "post 6 (5 6)" in seen
    if other != "user":
        assert seen.partition("post 99")[0].count("pre\n") == 3


def test_bash_ps0_that_is_set_anew_is_completed(home: Path) -> None:
    """Who sets PS0 and PROMPT_COMMAND after us, as texts, loses us for one prompt at most."""
    need("tmux", "bash")
    wire(home, "bash", after="PS0=; PROMPT_COMMAND='PS0='")
    folder = place()
    with terminal(home, "bash") as pane:
        pane.type("false", LAST)
        assert [line["command"] for line in told(folder)] == ["false"]


@pytest.mark.parametrize(("shell", "amount"), [("bash", 2_000), ("zsh", 2_000), ("fish", 200)])
def test_any_bytes_become_json(tmp_path: Path, shell: str, amount: int) -> None:
    """Whatever a command holds, its line is JSON, and holds it; of invalid UTF-8 a replacement."""
    need(shell)
    texts = hostile(amount)
    (tmp_path / "texts").write_bytes(b"".join(text + b"\0" for text in texts))
    (tmp_path / "hook").write_text(hook(shell))
    loop = 'while IFS= read -r -d "" t; do __opsmesh_json "$t"; printf "%s\\n" "$REPLY"; done'
    if shell == "fish":
        script = "source hook; while read -z t; __opsmesh_json $t; end < texts"
        command = ["fish", "-N", "-i", "-c", script]
    else:
        (tmp_path / "script").write_text(f". ./hook\nLC_ALL=C\n{loop} <texts\n")
        command = [*{"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell], "script"]
    env = {**os.environ, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, check=True, stdin=subprocess.DEVNULL
    )
    lines = done.stdout.split(b"\n")[:-1]
    found = [json.loads(line.decode(errors="replace")) for line in lines]
    assert len(found) == len(texts)
    wrong = [
        (text, line)
        for text, line in zip(texts, found, strict=True)
        if text.decode(errors="replace") != line
    ]
    assert wrong == []
