"""`opsmesh auth`: who may do what at this machine's broker. Credentials are never printed."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from opsmesh.cli import addresses, output
from opsmesh.cli.hub import knowing
from opsmesh.router import files, paths, server, topic_patterns
from opsmesh.router.auth.manifest import User
from opsmesh.router.auth.reads import Reads
from opsmesh.router.auth.store import Store
from opsmesh.router.roles import ROLES, own_name, own_names
from opsmesh.router.running import mesh
from opsmesh.router.settings import Settings
from opsmesh.schemas import durations

app = typer.Typer(
    help="Who may do what at this machine's broker: roles, credentials, certificates.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="As `opsmesh auth ls` shows it.")]
Profiles = Annotated[
    Path | None,
    typer.Option(
        "--profiles",
        metavar="FILE|FOLDER",
        help="A handler: it reads what these listen to, and no more.",
    ),
]
Out = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: NAME.creds here.")
]
CertificateOut = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: HOST.pem here.")
]


@app.command()
def init() -> None:
    """Make the keys of this machine's broker: operator, account, and one user for each role.

    `opsmesh up` does it at its first start; a second call changes nothing.

    Example: opsmesh auth init
    """
    store = _store()
    new = store.create()
    store.own(Settings().host)
    print(f"{'made' if new else 'there already'}: {store.folder}")
    output.note("whoever has keys.json is everybody: keep a copy where only you can read it")


@app.command()
def ls(as_json: AsJson = False) -> None:
    """Who has credentials, for what, since when; and what was revoked.

    Example: opsmesh auth ls
    """
    manifest = _store().manifest()
    if as_json:
        import msgspec

        output.as_json(msgspec.to_builtins(manifest))
        return
    from opsmesh.cli.auth import users as auth_users

    rows = [auth_users.row(name, user) for name, user in manifest.users.items()]
    rows += [
        {"name": void.name, "role": "revoked", "issued": output.local(void.at), "key": key[:12]}
        for key, void in manifest.revoked.items()
    ]
    columns = ["name", "role", "host", "topics", "profiles", "issued", "expires", "older_keys"]
    columns.append("key")
    output.table(rows, columns, empty="nobody has credentials yet: opsmesh auth init")


@app.command()
def issue(
    role: Annotated[str, typer.Option("--role", help=" | ".join(ROLES))],
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="Whose it is.")],
    topics: Annotated[
        list[str] | None,
        typer.Option(
            "--topics", metavar="PATTERN", help="A producer: only these; may be given again."
        ),
    ] = None,
    profiles: Profiles = None,
    name: Annotated[str | None, typer.Option("--name", help="Default: HOST-ROLE.")] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="90d", help="Void after so long.")
    ] = None,
    out: Out = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
) -> None:
    """Give somebody credentials: a file (0600) that is carried to where it is used.

    The running broker takes it up at once. On the other machine: nats.url and nats.credentials in
    config.yaml; `opsmesh hub token` does all of it for a whole host.

    With --profiles a handler reads the events that these profiles listen to and nothing else, and
    keeps records of these alone; the agent of the broker's machine has to run. When the profiles
    change: opsmesh auth rotate NAME --profiles FILE.

    Examples: opsmesh auth issue --role producer --host desk --topics 'shell.>' -o desk.creds;
    opsmesh auth issue --role handler --host desk --profiles profiles.yaml
    """
    store, name = _store(issues=True), name or own_name(_role(role), host)
    if topics and role != "producer":
        output.fail("--topics goes with --role producer", code=output.USAGE)
    if profiles is not None and role != "handler":
        output.fail("--profiles goes with --role handler", code=output.USAGE)
    for pattern in topics or ():
        _pattern(pattern)
    if name in store.manifest().users:
        output.fail(
            f"{name} has credentials already",
            hint=f"new ones for the same user: opsmesh auth rotate {name}; another one: --name",
        )
    path = _free(out or Path(f"{name}.creds"), force=force)
    text = store.issue(
        name,
        role=role,
        host=host,
        topics=tuple(topics or ()),
        expires_s=_seconds(expires),
        reads=_reads(profiles, host),
    )
    files.write_private(path, text.encode())
    print(path)
    if role == "producer":  # it has an account of its own
        _tell()
    output.note(f"{name} may connect with it now; take it back: opsmesh auth revoke {name}")


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """One user, and every subject it may publish and subscribe to.

    Example: opsmesh auth show desk-producer
    """
    from opsmesh.cli.auth import users as auth_users

    auth_users.show(name, _known(_store(), name), as_json=as_json)


@app.command()
def revoke(name: Name) -> None:
    """Make everything that this user was given void. The running broker cuts it off at once.

    Example: opsmesh auth revoke desk-producer
    """
    settings, store = Settings(), _store()
    if name in own_names(settings.host):
        output.fail(
            f"{name} is this machine's own",
            hint="new credentials for all of its processes: opsmesh auth rotate --own",
        )
    _known(store, name)
    store.revoke(name)
    print(f"revoked {name}")
    _tell()


@app.command()
def rotate(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A user.")] = None,
    own: Annotated[bool, typer.Option("--own", help="This machine's own processes.")] = False,
    signing: Annotated[
        bool, typer.Option("--signing", help="The key that users are signed with.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Make what came before void: all have moved.")
    ] = False,
    profiles: Profiles = None,
    out: Out = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
) -> None:
    """New credentials without an outage: the old ones are valid until --finish.

    What was issued with --expires is valid for as long again.

    The machine's own processes need nothing: they are given new ones and connect again.

    Examples: opsmesh auth rotate desk-producer -o desk.creds; then, once it is in use there,
    opsmesh auth rotate desk-producer --finish. A handler whose profiles have changed:
    opsmesh auth rotate desk-handler --profiles profiles.yaml
    """
    if profiles is not None and (name is None or finish):
        output.fail("--profiles goes with NAME", code=output.USAGE)
    if (name is not None) + own + signing != 1:
        output.fail("rotate what: NAME, --own or --signing", code=output.USAGE)
    store = _store(issues=signing or not (own or finish))
    if signing:
        _rotate_signing(store, finish=finish)
    elif own:
        host = Settings().host
        store.own(host, anew=True)
        for ours in own_names(host):
            store.finish(ours)
        print("this machine's processes have new credentials")
        _tell()
    elif name is not None and finish:
        _known(store, name)
        count = store.finish(name)
        print(f"{name}: {count} older {'key is' if count == 1 else 'keys are'} void")
        _tell()
    elif name is not None:
        user = _known(store, name)
        if profiles is not None and user.role != "handler":
            output.fail(f"{name} is a {user.role}: --profiles is for a handler", code=output.USAGE)
        reads = _reads(profiles, user.host)
        path = _free(out or Path(f"{name}.creds"), force=force)
        text = store.reissue(name, reads=reads)
        files.write_private(path, text.encode())
        print(path)
        output.note(f"once it is in use: opsmesh auth rotate {name} --finish")


def _rotate_signing(store: Store, *, finish: bool) -> None:
    host = Settings().host
    if not finish:
        store.rotate_signing()
        _tell()
        store.own(host, anew=True)
        print("what is issued from now on is signed with a new key; the one before is trusted yet")
        output.note(
            "each user: opsmesh auth rotate NAME; then: opsmesh auth rotate --signing --finish"
        )
        return
    if stale := store.signed_before():
        output.fail(
            f"signed with the key before, and cut off by this: {', '.join(stale)}",
            hint="give each new credentials first: opsmesh auth rotate NAME",
        )
    store.retire_signing()
    print("only the newest signing key is trusted")
    _tell()


@app.command()
def check(as_json: AsJson = False) -> None:
    """Prove what each role may: every role against every kind of subject, at a server of its own.

    Exit code 1: the server lets something through that it should not, or the other way round.

    Example: opsmesh auth check
    """
    from opsmesh.cli.auth import check as auth_check

    auth_check.show(as_json=as_json)


@app.command()
def ca(
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address", metavar="NAME|IP", help="Where this broker is reached; may be given again."
        ),
    ] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Another authority; the one before stays trusted.")
    ] = False,
    retire: Annotated[bool, typer.Option("--retire", help="Trust the newest one alone.")] = False,
    renew: Annotated[
        bool, typer.Option("--renew", help="New certificates for the broker and this machine.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The certificate authority of TLS between hosts: made once, shown, renewed, exchanged.

    With it the broker speaks TLS alone, and each side shows a certificate. To exchange it without
    an outage: --new; give each host its new ca.pem and certificate; --renew; --retire.

    Example: opsmesh auth ca --address hub.example.org --address 192.0.2.7
    """
    from opsmesh.router.auth import ca as authorities

    addresses.require(address or (), hint="as hub.example.org or 192.0.2.7, without a port")
    settings, store = Settings(), _store(issues=bool(address or new or retire or renew))
    store.create()
    authority = store.ca
    known = authorities.names(authority.server) if authority.server.exists() else []
    here = (settings.host, "localhost", "127.0.0.1")
    wanted = list(dict.fromkeys([*known, *(address or ()), *here]))
    if new or not authority.exists:
        authority.create(settings.host)
    elif retire:
        authority.retire()
    if renew or not known or set(wanted) != set(known):
        authority.issue_server(settings.host, wanted)
        store.own(settings.host)
        files.write_private(store.own_certificate, authority.certificate(settings.host))
    running = _tell(quiet=True)
    facts = {
        "authority": str(authority.bundle),
        "certificate": str(authority.server),
        "for": wanted,
        "expires": authorities.expires(authority.server).isoformat(),
    }
    if as_json:
        output.as_json(facts)
        return
    for key, value in facts.items():
        print(f"{key:12} {', '.join(value) if isinstance(value, list) else value}")
    left = authorities.expires(authority.server) - datetime.datetime.now(datetime.UTC)
    if left.days < authorities.SOON:
        output.note(f"it expires in {left.days} days: opsmesh auth ca --renew")
    if running and not known:
        now = mesh()
        command = now.anew if now is not None else "opsmesh down && opsmesh up --detach"
        output.note(f"the broker speaks TLS from its next start: {command}")


@app.command()
def certificate(
    host: Annotated[str, typer.Argument(metavar="HOST", help="Whose it is.")],
    out: CertificateOut = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
) -> None:
    """A certificate and its key for a host, in one file (0600).

    Example: opsmesh auth certificate desk -o desk.pem
    """
    pem = _store().ca.certificate(host)
    path = _free(out or Path(f"{host}.pem"), force=force)
    files.write_private(path, pem)
    print(path)


def _reads(profiles: Path | None, host: str) -> dict[str, Reads] | None:
    from opsmesh.cli.auth.profiles import reads_of

    return None if profiles is None else reads_of(profiles, host)


def _store(*, issues: bool = False) -> Store:
    if issues:
        knowing.keeper_only()
    return Store(Path(paths.state_dir(), "auth"))


def _known(store: Store, name: str) -> User:
    user = store.manifest().users.get(name)
    if user is None:
        hint = "opsmesh auth ls" if store.exists else "opsmesh auth init makes this machine's keys"
        output.fail(f"no user {name!r}", hint=hint, code=output.NOT_FOUND)
    return user


def _tell(*, quiet: bool = False) -> bool:
    """Have the running broker take it up; whether one runs."""
    broker = server.known(Path(paths.state_dir()))
    running = broker is not None and server.reload(broker)
    knowing.tell(running=running)
    if not running and not quiet:
        output.note("the broker does not run here; it takes this up at its next start")
    return running


def _role(role: str) -> Any:
    if role not in ROLES:
        output.fail(f"{role!r} is no role", hint=f"one of {', '.join(ROLES)}", code=output.USAGE)
    return role


def _pattern(text: str) -> None:
    try:
        topic_patterns.checked(text)
    except ValueError as error:
        output.fail(str(error), code=output.USAGE)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else durations.parse(text)
    except durations.DurationError as error:
        output.fail(str(error), code=output.USAGE)


def _free(path: Path, *, force: bool) -> Path:
    if path.exists() and not force:
        output.fail(f"{path} is there already", hint="-o another one, or --force")
    if not path.parent.is_dir():
        output.fail(f"{path.parent} is no folder", code=output.USAGE)
    return path
