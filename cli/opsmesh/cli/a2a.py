"""`opsmesh a2a`: agents beyond the mesh, asked by hand, and the mesh as an agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.handlers.actions.contract import Secrets
from opsmesh.handlers.errors import AgentFault, ExtraMissing, HandlersError
from opsmesh.router.settings import Settings, config_file
from opsmesh.router.settings_a2a import A2aAgent
from opsmesh.schemas.exact import Known

if TYPE_CHECKING:
    from opsmesh.handlers.a2a.agents import Agent
    from opsmesh.handlers.a2a.answers import Standing
    from opsmesh.handlers.a2a.cards import Card

app = typer.Typer(no_args_is_help=True, help="Agents beyond the mesh, over the protocol A2A.")

T = TypeVar("T")

#: How an agent is called that has no name in the settings.
UNNAMED = "unnamed"
#: Seconds before `send` looks at a task for the first time; then less and less often.
FIRST_LOOK_S = 0.05

As_json = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command("ls")
def ls(as_json: As_json = False) -> None:
    """List the agents of config.yaml, and whether each answers.

    Example: opsmesh a2a ls
    """
    _extra()
    settings = Settings()
    rows = _run(_look_at_all(settings))
    if as_json:
        output.as_json(rows)
        return
    output.table(
        rows,
        ["name", "url", "card", "skills", "pinned", "problem"],
        empty=f"no agents; write a2a_agents into {config_file()}",
    )


async def _look_at_all(settings: Settings) -> list[dict[str, Any]]:
    from opsmesh.handlers.a2a import agents

    found = [agents.find(settings, name) for name in sorted(settings.a2a_agents)]
    return list(await asyncio.gather(*(_look_at(agent, settings) for agent in found)))


async def _look_at(agent: Agent, settings: Settings) -> dict[str, Any]:
    about = {
        "name": agent.name,
        "url": agent.about.url,
        "card": None,
        "skills": None,
        "pinned": agent.about.card_sha256 is not None,
        "problem": None,
    }
    try:
        card = await _card(agent, settings)
        parsed = card.parsed()
        agent.interface(parsed)
    except HandlersError as error:
        return {**about, "problem": str(error)}
    skills = ", ".join(_line(one.id) for one in parsed.skills)
    return {**about, "card": _line(parsed.name), "skills": skills}


@app.command("card")
def card(
    agent: Annotated[str, typer.Argument(metavar="NAME|URL", help="An agent, or its address.")],
    pin: Annotated[
        bool, typer.Option("--pin", help="Print the setting that agrees to this card alone.")
    ] = False,
    as_json: As_json = False,
) -> None:
    """Show an agent's card and its hash.

    A pinned card is compared, and no other one is used: what the agent may do, and where it is,
    changes only when you say so. Example: opsmesh a2a card reviewer --pin
    """
    _extra()
    settings = Settings()
    chosen = _chosen(agent, settings)
    pinned = chosen.about.card_sha256
    unpinned = chosen.about.model_copy(update={"card_sha256": None})
    found = _run(_card(_renamed(chosen, unpinned), settings))
    if as_json:
        output.as_json({"sha256": found.sha256, "pinned": pinned, "card": found.content})
        return
    if pin:
        name = chosen.name if chosen.name != UNNAMED else "NAME"
        output.note(f"agree to this card in {config_file()}:")
        url = json.dumps(chosen.about.url)
        print(f"a2a_agents:\n  {name}:\n    url: {url}\n    card_sha256: {found.sha256}")
        return
    _show(found, pinned)


def _show(found: Card, pinned: str | None) -> None:
    parsed, say = found.parsed(), output.console().print
    say(f"[bold]{escape(_line(parsed.name))}[/] {escape(_line(parsed.version))}")
    say(escape(_line(parsed.description)))
    say(f"sha256  {found.sha256}{_compared(found.sha256, pinned)}")
    for one in parsed.supported_interfaces:
        binding = f"{one.protocol_binding} {one.protocol_version}"
        say(f"at      {escape(_line(f'{one.url} ({binding})'))}")
    for scheme in parsed.security_schemes.values():
        from opsmesh.handlers.a2a import agents

        say(f"asks    {escape(_line(agents.describe(scheme)))}")
    can = parsed.capabilities
    words = [("streams", can.streaming), ("pushes", can.push_notifications)]
    say(f"can     {', '.join(word for word, yes in words if yes) or 'be polled'}")
    for skill in parsed.skills:
        say(f"skill   {escape(_line(skill.id))}: {escape(_line(skill.description))}")


def _compared(digest: str, pinned: str | None) -> str:
    if pinned is None:
        return " (not pinned)"
    return " (pinned)" if pinned == digest else f" [red](another one is pinned: {pinned})[/]"


@app.command("send")
def send(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An agent of config.yaml, or a URL.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to ask.")],
    skill: Annotated[str, typer.Option(help="The skill to ask for.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the end.")] = 60.0,
    as_json: As_json = False,
) -> None:
    """Ask an agent something, and show what it answers: to try, outside of any profile.

    Example: opsmesh a2a send reviewer "look at the last commit"
    """
    _extra()
    settings = Settings()
    asked = _send(settings, _chosen(name, settings), text, skill, timeout, quiet=as_json)
    standing = _run(asked)
    facts = {
        "state": standing.state,
        "task_id": standing.task_id,
        "status_message": standing.said,
        "artifacts": standing.artifacts,
        "truncated": standing.truncated,
    }
    if as_json:
        output.as_json(facts)
    else:
        _tell(standing)
    if standing.state != "completed":
        raise typer.Exit(output.FAILED)


def _tell(standing: Standing) -> None:
    say = output.console().print
    task = f" (task {standing.task_id})" if standing.task_id else ""
    say(f"[bold]{standing.state}[/]{escape(task)}")
    if standing.said:
        say(escape(standing.said))
    for artifact in standing.artifacts:
        for part in artifact["parts"]:
            shown = part["text"] if "text" in part else json.dumps(part, ensure_ascii=False)
            say(escape(shown))
    if standing.truncated:
        output.note("cut: it was longer")


async def _send(
    settings: Settings, agent: Agent, text: str, skill: str, timeout_s: float, *, quiet: bool
) -> Standing:
    from a2a.types import Message, Part, Role

    from opsmesh.handlers.a2a import answers, remote
    from opsmesh.schemas import ids

    message = Message(
        message_id=ids.uuid7(), context_id=ids.uuid7(), role=Role.ROLE_USER, parts=[Part(text=text)]
    )
    if skill:
        message.metadata.update({"skill": skill, "skillId": skill})
    async with await remote.open_(agent, _secrets(settings)) as opened:
        answer = await opened.send(message, immediately=True)
        if isinstance(answer, answers.Standing):
            return answer
        answers.check(agent.name, answer, context_id=message.context_id, task_id=None)
        standing, last, delay = answers.standing(answer), "", FIRST_LOOK_S
        try:
            async with asyncio.timeout(timeout_s):
                while not standing.over:
                    if standing.state != last and not quiet:
                        output.note(f"{standing.state} (task {standing.task_id})")
                    last = standing.state
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, 1.0)
                    found = await opened.get(answer.id)
                    answers.check(
                        agent.name, found, context_id=message.context_id, task_id=answer.id
                    )
                    standing = answers.standing(found)
        except TimeoutError:
            reason = f"not done within {timeout_s:g} s; task {answer.id} goes on"
            raise AgentFault(agent.name, reason) from None
        return standing


@app.command("serve")
def serve(
    host: Annotated[str | None, typer.Option(help="Instead of a2a_serve.host.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Instead of a2a_serve.port; 0: a free one.")
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="No token, for programs of this machine alone.")
    ] = False,
    v0_3: Annotated[bool, typer.Option("--v0-3", help="Also answer protocol 0.3.")] = False,
) -> None:
    """Be an agent: profiles that say `expose: true` are skills, and their runs tasks.

    Needs a token (a2a_serve.tokens in config.yaml) unless --no-auth, and beyond this machine TLS.
    Example: opsmesh a2a serve --port 9470
    """
    _extra()
    from opsmesh.handlers.a2a_serve import serve as server
    from opsmesh.router import logs, redaction

    settings = Settings()
    changes: dict[str, Any] = {"v0_3": v0_3 or settings.a2a_serve.v0_3}
    if host:
        changes["host"] = host
    if port is not None:
        changes["port"] = port
    about = settings.a2a_serve.model_copy(update=changes)
    settings = settings.model_copy(update={"a2a_serve": about})
    known = Known()
    clean = redaction.of_logs(settings, known=known)
    logs.configure("a2a", level=settings.log_level, style=settings.log, redactor=clean)

    def ready(address: str) -> None:
        print(f"serving {address}/.well-known/agent-card.json", flush=True)

    _run(server.serve(settings, _secrets(settings, known), no_auth=no_auth, ready=ready))


def _chosen(name: str, settings: Settings) -> Agent:
    from opsmesh.handlers.a2a import agents

    if not name.startswith(("http://", "https://")):
        try:
            return agents.find(settings, name)
        except AgentFault as fault:
            output.fail(str(fault), hint="opsmesh a2a ls", code=output.NOT_FOUND)
    try:
        return agents.Agent(name=UNNAMED, about=A2aAgent(url=name))
    except ValueError:
        output.fail(f"{name!r} is no address like https://agent.example", code=output.USAGE)


def _renamed(agent: Agent, about: A2aAgent) -> Agent:
    from opsmesh.handlers.a2a import agents

    return agents.Agent(name=agent.name, about=about)


async def _card(agent: Agent, settings: Settings) -> Card:
    from opsmesh.handlers.a2a import bounded, cards

    headers = agent.headers(None, _secrets(settings))
    async with bounded.client(
        agent.name, headers=headers, timeout_s=agent.about.timeout, limit=2 * cards.MAX_CARD
    ) as http:
        return await cards.get(
            http, agent.name, agent.card_url, pin=agent.about.card_sha256, fresh=True
        )


def _secrets(settings: Settings, known: Known | None = None) -> Secrets:
    from opsmesh.handlers.secrets import store

    return store.load(settings.secrets, known or Known())


def _line(text: str) -> str:
    """A stranger's text on one line of a terminal."""
    from opsmesh.handlers.a2a import words

    return " ".join(words.text(text, 300)[0].split())


def _extra() -> None:
    try:
        import a2a.client
        import a2a.server.routes  # noqa: F401
    except ImportError as error:
        raise ExtraMissing("a2a", str(error)) from error


def _run(work: Awaitable[T]) -> T:
    async def body() -> T:
        return await work

    try:
        return asyncio.run(body())
    except AgentFault as fault:
        output.fail(f"agent {fault.agent}: {fault.reason}", hint=fault.hint)
