"""`opsmesh profile test`: files of cases, their verdicts, and what a person reads of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
from tests.conftest import mesh_client, run
from tests.evidence.made import MORNING, opened
from typer.testing import CliRunner, Result

from opsmesh.cli import said
from opsmesh.cli.profiles import cases as profile_cases
from opsmesh.handlers.cases.cases import load_cases
from opsmesh.handlers.cases.diff import Verdict, judge
from opsmesh.handlers.cases.draft import draft
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.router import paths
from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event, encode
from opsmesh.schemas.registry import load_registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing-profiles.md"

PROFILES = """\
profiles:
  burst:
    on: [python.test.failed, shell.command.failed]
    where: event.severity != "info"
    debounce: {window: 10s}
    actions:
      - id: bundle
        collect: [{file: "${{ event.payload.nope }}"}]
      - id: tell
        command: [notify-send, "${{ event.payload.nodeid }}", "${{ event.payload.lineno }}",
                  "see ${{ steps.bundle.path }}"]
  many:
    on: python.test.failed
    state: shadow
    collect: {window: 1m}
    actions:
      - emit: {topic: my.failures, payload: {count: "${{ size(events) }}",
               first: "${{ events[0].payload.nodeid }}", story: "${{ event.correlation_id }}"}}
  silence:
    on: job.started
    unless: {on: job.done, within: 5m}
    actions: [{command: [page, "${{ vars.who }}", "${{ event.payload.job }}"]}]
    vars: {who: me}
"""
HEAD = "defaults: {host: laptop, workspace: /app}\ncases:\n"
FAILED = "topic: python.test.failed, payload: {nodeid: t.py::a, phase: call, lineno: 3}"

EVENT = Event(
    topic="python.test.failed",
    ts_utc="2026-11-23T08:59:59.5Z",
    source="pytest",
    component="app",
    severity="error",
    correlation_id="story-7",
    host="dev",
    session_id="s1",
    workspace="/src/app",
    payload={
        "nodeid": "t.py::a",
        "phase": "call",
        "lineno": 3,
        "message": "1e5",
        "path": "on",
        "longrepr": "def test_a():\n>   assert 1 == 2\nE   assert 1 == 2\n",
    },
    id="019ab000-0000-7000-8000-000000000001",
    schema_version="1.0",
)


@pytest.fixture
def config(home: Path) -> Path:
    """The configuration folder, with profiles."""
    folder = Path(paths.config_dir())
    (folder / "tests").mkdir(parents=True)
    (folder / "profiles.yaml").write_text(PROFILES)
    return folder


def command(*arguments: str) -> Result:
    app = typer.Typer()
    app.command("test")(profile_cases.profile_test)
    return CliRunner().invoke(app, arguments)


def cases(config: Path, text: str) -> Path:
    file = config / "tests" / "a.yaml"
    file.write_text(HEAD + text)
    return file


def verdict(config: Path, text: str) -> Verdict:
    """The verdict of the one case."""
    found = load_cases(cases(config, text), config_dir=config)
    assert found.errors == []
    (case,) = found.cases
    return judge(case)


def case(given: str, expect: str, *, profile: str = "burst", more: str = "") -> str:
    return f"""\
  - name: one
    profile: {profile}
{more}    given:
{given}
    expect: {expect}
"""


@pytest.mark.parametrize(
    ("profile", "given", "expect"),
    [
        ("burst", f"      - {{{FAILED}, repeat: 3, every: 9s}}", "{fires: 1, suppressed: 2}"),
        (
            "burst",
            f"      - {{{FAILED}, repeat: 3, every: 9s}}",
            "{fires: [{at: 0s, clause: where, events: 1}], suppressed: {debounced: 2, waiting: 0}}",
        ),
        (
            "burst",
            f"      - {{{FAILED}}}\n      - {{at: 1s, {FAILED}, workspace: /other}}",
            "{fires: [{at: 0s}, {at: 1s}], suppressed: 0}",
        ),
        (
            "burst",
            f"      - {{{FAILED}}}",
            "{fires: [{arguments: {tell: [notify-send, 't.py::a', 3, see <steps.bundle.path>]}}]}",
        ),
        (
            "burst",
            f"      - {{{FAILED}, severity: info}}",
            "{fires: 0, suppressed: [{outcome: filtered, clause: where, reason: is false}]}",
        ),
        ("burst", f"      - {{{FAILED}, host: other}}", "{suppressed: [{clause: run_on}]}"),
        ("burst", f"      - {{{FAILED}, id: x, repeat: 2}}", "{suppressed: {duplicate: 1}}"),
        (
            "many",
            f"      - {{{FAILED}, repeat: 4, every: 2s, correlation_id: s}}",
            "{fires: [{at: 1m, clause: shadow, events: 4, reason: 4 events in 60 s, arguments: "
            "{emit_0: {payload: {count: 4, story: s, first: 't.py::a'}}}}], "
            "suppressed: {collecting: 4, suppressed: 0}}",
        ),
        (
            "silence",
            "      - {topic: job.started, payload: {job: 7}}",
            "{fires: [{at: 5m, topic: job.started, clause: unless, "
            "arguments: {command_0: {argv: [page, me, 7]}}}], suppressed: {waiting: 1}}",
        ),
        (
            "silence",
            "      - {topic: job.started, payload: {job: 7}}\n      - {at: 4m, topic: job.done}",
            "{fires: [], suppressed: [{outcome: waiting}, {at: 4m, topic: job.done}]}",
        ),
    ],
)
def test_what_holds_passes(config: Path, profile: str, given: str, expect: str) -> None:
    """A case that says what the profile does passes: bursts, timers, arguments, shadow."""
    assert verdict(config, case(given, expect, profile=profile)).differences == ()


def test_host_of_a_case(config: Path) -> None:
    """A case may be decided elsewhere; its events come from there unless they say otherwise."""
    text = case(f"      - {{{FAILED}}}", "{fires: [{at: 0s}]}", more="    host: server\n")
    assert verdict(config, text).passed
    text = text.replace("{topic:", "{host: laptop, topic:")
    (one,) = verdict(config, text).played.misses
    assert one.decision
    assert one.decision.reason == "runs on laptop, and this is server"


def test_until_stops_the_clock(config: Path) -> None:
    """A timer that would come after `until` does not come, and the report says what waits."""
    given = "      - {topic: job.started, payload: {job: 7}}"
    text = case(given, "{fires: 1}", profile="silence", more="    until: 2m\n")
    cases(config, text)
    result = command()
    assert result.exit_code == 1
    assert "fires: expected 1, got 0" in result.stdout
    assert "the case ends while unless waits, until 5m" in result.stdout


def test_failing_case_shows_why(config: Path) -> None:
    """A failure shows expected against actual runs and arguments, then every decision."""
    given = f"""\
      - {{{FAILED}}}
      - {{at: 2s, {FAILED}}}
      - {{at: 2s, {FAILED}, workspace: /other}}
      - {{at: 3s, {FAILED}, severity: info}}
      - {{at: 30s, topic: python.test.faild}}"""
    expect = """
      fires:
        - {at: 0s, arguments: {tell: [notify-send, "t.py::b"], bundle: {items: [{file: x}]}}}
        - {at: 20s, topic: python.test.failed, clause: debounce}
      suppressed: {debounced: 2}"""
    cases(config, case(given, expect))
    result = command()
    assert result.exit_code == 1
    assert result.stdout == (
        """\
FAIL tests/a.yaml:3: one
  fires
      0s python.test.failed by where
    - 20s python.test.failed by debounce
    + 2s python.test.failed by where
  arguments at 0s: bundle.items[0].file
    - "x"
    + "<${{ event.payload.nope }}: no field event.payload.nope; has(event.payload.nope) asks \
whether it is there>"
  arguments at 0s: tell.argv
    - ["notify-send","t.py::b"]
    + ["notify-send","t.py::a","3","see <steps.bundle.path>"]
  suppressed.debounced: expected 2, got 1
  what burst decided on laptop:
    0s   event 1  python.test.failed  /app    fire       where     event.severity != "info" is \
true (event.severity = "error")
    2s   event 2  python.test.failed  /app    debounced  debounce  2 s after the last event of its \
burst, the window is 10 s
    2s   event 3  python.test.failed  /other  fire       where     event.severity != "info" is \
true (event.severity = "error")
    3s   event 4  python.test.failed  /app    filtered   where     event.severity != "info" is \
false (event.severity = "info")
    30s  event 5  python.test.faild   /app    -          -         not for this profile; did you \
mean 'python.test.failed'?
1 case: 0 passed, 1 failed
"""
    )


def test_placeholder_without_answer_fails(config: Path) -> None:
    """A command that could not be rendered fails the case, also when no argument is named."""
    given = "      - {topic: shell.command.failed, check: false}"
    found = verdict(config, case(given, "{fires: 1}"))
    assert [one.what for one in found.differences] == ["step tell at 0s cannot be run"]


def test_long_case_is_cut(config: Path) -> None:
    """Of a thousand decisions a failure shows the first and the last."""
    cases(config, case(f"      - {{{FAILED}, repeat: 1000, every: 10ms}}", "{fires: 2}"))
    result = command()
    assert "… 960 more" in result.stdout
    assert "event 1000" in result.stdout
    assert len(result.stdout.splitlines()) < 50


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (case("      - {topic: a.b}", "{fires: 1}", profile="burts"), "4:14: no profile 'burts'"),
        (case("      - {topc: a.b}", "{fires: 1}"), "6:10: unknown key 'topc'"),
        (case("      - {topic: a}", "{fires: 1}"), "6:17: topic 'a' is not 2 to 6 tokens"),
        (case("      - {at: 5, topic: a.b}", "{fires: 1}"), "6:14: at: 5 is no duration"),
        (case("      - {at: 1s}", "{fires: 1}"), "6:9: given: an event needs a 'topic'"),
        (
            case("      - {topic: python.test.failed, payload: {nodeid: x}}", "{fires: 1}"),
            "6:46: payload of python.test.failed: missing field phase",
        ),
        (
            case("      - {event: {topic: a.b, severity: bad}}", "{fires: 1}"),
            "6:40: severity 'bad' is not one of info, warn, error, critical",
        ),
        (case(f"      - {{{FAILED}}}", "{fires: one}"), "7:21: fires: write a number"),
        (case(f"      - {{{FAILED}}}", "{}"), "7:13: expect: nothing is expected"),
        (
            case(f"      - {{{FAILED}}}", "{fires: [{clouse: on}]}"),
            "7:23: unknown key 'clouse' in case 'one'; did you mean 'clause'?",
        ),
        (
            case(f"      - {{{FAILED}}}", "{fires: [{arguments: {tel: x}}]}"),
            "7:35: burst has no step 'tel' in case 'one'; did you mean 'tell'?",
        ),
        (
            case(f"      - {{{FAILED}}}", "{suppressed: {debouncd: 1}}"),
            "7:27: unknown key 'debouncd' in case 'one'; did you mean 'debounced'?",
        ),
        (
            case(f"      - {{at: 9s, {FAILED}}}", "{fires: 1}", more="    until: 3s\n"),
            "7:14: this event comes after 'until'",
        ),
        (case(f"      - {{at: 900w, {FAILED}}}", "{fires: 1}"), "6:14: at: longer than a year"),
        (case('      - {topic: a.b, workspace: "\\ud800"}', "{fires: 1}"), "6:9: no JSON can hold"),
        (case("      - {topic: a.b}", "{fires: 1}", more="    at: 9999-01-01\n"), "5:9: at: '9999"),
        (2 * case(f"      - {{{FAILED}}}", "{fires: 1}"), "8:11: line 3 has a case of this name"),
    ],
)
def test_broken_file(config: Path, text: str, message: str) -> None:
    """A mistake is named with file, line and column, and ends with exit code 2."""
    cases(config, text)
    result = command()
    assert result.exit_code == 2
    assert f"tests/a.yaml:{message}" in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_broken_profiles(config: Path) -> None:
    """A mistake in the profiles is named once, and no case is run."""
    (config / "profiles.yaml").write_text(PROFILES.replace("debounce:", "debunce:"))
    one = cases(config, case(f"      - {{{FAILED}}}", "{fires: 1}"))
    result = command(str(one), str(one))
    assert result.exit_code == 2
    assert result.stderr.count("profiles.yaml:5:5: unknown key 'debunce'") == 1


def test_profiles_of_a_repository(config: Path, tmp_path: Path) -> None:
    """A file may name its profiles and have topics of its own; `--profiles` goes before that."""
    folder = tmp_path / "repository"
    (folder / "tests").mkdir(parents=True)
    (folder / "p.yaml").write_text(
        "profiles: {x: {on: shop.sold, actions: [{command: [echo, hi]}]}}"
    )
    file = folder / "tests" / "x.yaml"
    text = "cases: [{name: n, profile: x, given: [{topic: shop.sold}], expect: {fires: 1}}]"
    file.write_text(f"profiles: ../p.yaml\n{text}")
    assert command(str(file)).exit_code == 0
    file.write_text(f"profiles: ../q.yaml\n{text}")
    result = command(str(file))
    assert result.exit_code == 2
    assert "x.yaml:1:11: there is no '../q.yaml' beside this file" in result.stderr
    assert command(str(file), "--profiles", str(folder / "p.yaml")).exit_code == 0
    assert command(str(file), "--profiles", str(folder / "none.yaml")).exit_code == 3


def test_choosing_cases(config: Path) -> None:
    """-k takes the cases with the text in their name; none of that name, or none at all, is 3."""
    assert command().exit_code == 3
    one = case(f"      - {{{FAILED}}}", "{fires: 1}")
    cases(config, one + one.replace("one", "Other").replace("fires: 1", "fires: 2"))
    assert command("-k", "ONE").exit_code == 0
    assert command("-k", "other").exit_code == 1
    assert command("-k", "nothing").exit_code == 3
    assert command(str(config / "missing.yaml")).exit_code == 3


def test_reports_for_programs(config: Path, tmp_path: Path) -> None:
    """JSON and JUnit name every case, its place, and what is not as expected."""
    one = case(f"      - {{{FAILED}}}", "{fires: 1}")
    cases(config, one + one.replace("one", "other").replace("fires: 1", "fires: 2"))
    report = tmp_path / "out" / "junit.xml"
    result = command("--json", "--junit", str(report))
    assert result.exit_code == 1
    found: list[dict[str, Any]] = json.loads(result.stdout)
    assert [(one["case"], one["line"], one["passed"]) for one in found] == [
        ("one", 3, True),
        ("other", 8, False),
    ]
    assert found[1]["differences"] == [{"what": "fires", "expected": 2, "actual": 1}]
    assert found[0]["decisions"][0]["decision"]["outcome"] == "fire"
    (suite,) = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    (failure,) = suite.iter("failure")
    assert "fires: expected 2, got 1" in (failure.text or "")


def test_draft_passes_and_is_short(config: Path) -> None:
    """A case of a real event holds what makes a difference, and passes as it stands."""
    found = load_profiles(config)
    chosen = [found.profiles["burst"], found.profiles["many"]]
    text = draft(chosen, EVENT, stored_us=MORNING, registry=load_registry())
    assert text == (
        """\
# Made from event 019ab000-0000-7000-8000-000000000001, stored at 2026-11-23T09:00:00.000000Z.
version: 1
defaults: {host: dev}
cases:
  - name: python.test.failed fires burst
    profile: burst
    at: 2026-11-23T09:00:00Z
    given:
      - topic: python.test.failed
        payload:
          nodeid: t.py::a
          phase: call
          lineno: 3
          message: '1e5'
          path: on
          longrepr: |
            def test_a():
            >   assert 1 == 2
            E   assert 1 == 2
        workspace: /src/app
    expect:
      fires:
        - clause: where
          arguments:
            tell: [notify-send, 't.py::a', '3', see <steps.bundle.path>]
  - name: python.test.failed fires many
    profile: many
    at: 2026-11-23T09:00:00Z
    given:
      - topic: python.test.failed
        payload:
          nodeid: t.py::a
          phase: call
          lineno: 3
          message: '1e5'
          path: on
          longrepr: |
            def test_a():
            >   assert 1 == 2
            E   assert 1 == 2
        workspace: /src/app
        correlation_id: story-7
    expect:
      fires:
        - at: 1m
          clause: shadow
          arguments:
            emit_0:
              payload: {count: 1, first: 't.py::a', story: story-7}
      suppressed:
        - {outcome: collecting, clause: collect}
"""
    )
    (config / "tests" / "a.yaml").write_text(text)
    assert command().exit_code == 0


def test_case_from_the_stream(config: Path, nats_server: EmbeddedServer) -> None:
    """An event of the stream becomes a case of each profile that listens to it, and it passes."""

    async def store() -> None:
        async with mesh_client() as client:
            await said.say(client, EVENT)

    run(store())
    file = config / "tests" / "real.yaml"
    result = command("--from-event", EVENT.id[:20], "-o", str(file))
    assert result.exit_code == 0, result.output
    assert file.read_text().count("profile: ") == 2
    assert "2 cases: 2 passed, 0 failed" in command().stdout
    assert command("--from-event", EVENT.id, "-o", str(file)).exit_code == 2
    assert command("--from-event", "no-such-id").exit_code == 3


def test_case_from_the_archive(config: Path) -> None:
    """With the mesh down the archive has the event; one profile can be chosen."""
    event = encode(EVENT)
    with opened(Path(paths.evidence_dir())) as made:
        made.event(1, times.now_us(), event)
        made.commit()
    result = command("--from-event", EVENT.id, "--profile", "burst")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("profile: burst") == 1
    assert command("--from-event", EVENT.id, "--profile", "burts").exit_code == 3
    assert command("--profile", "burst").exit_code == 2


def test_case_of_a_run_that_would_fail(config: Path) -> None:
    """An event for which a step cannot be run is no case; the error says which step and why."""
    odd = b'{"topic":"shell.command.failed","id":"019ab000-0000-7000-8000-00000000000f",' + (
        encode(EVENT).split(b",", 1)[1].replace(b'"nodeid":"t.py::a",', b"")
    )
    with opened(Path(paths.evidence_dir())) as made:
        made.event(1, MORNING, odd.replace(b',"id":"019ab000-0000-7000-8000-000000000001"', b""))
        made.commit()
    result = command("--from-event", "019ab000-0000-7000-8000-00000000000f")
    assert result.exit_code == 1
    assert "burst fires, but its step tell cannot be run" in " ".join(result.stderr.split())


def test_page_for_users(config: Path) -> None:
    """The page's profile and cases are valid, and its outputs are the real ones."""
    page = PAGE.read_text(encoding="utf-8")
    profiles, file = re.findall(r"```yaml\n(.+?)```", page, re.DOTALL)
    passes, fails, broken, _ = re.findall(r"```console\n\$ (.+?)\n(.*?)```", page, re.DOTALL)
    (config / "profiles.yaml").write_text(profiles)
    (config / "tests" / "failed-unit.yaml").write_text(file)
    assert command().stdout == passes[1]
    (config / "profiles.yaml").write_text(profiles.replace(", payload.unit", ""))
    result = command()
    assert (result.exit_code, result.stdout) == (1, fails[1])
    (config / "tests" / "failed-unit.yaml").write_text(file.replace("repeat:", "repat:"))
    result = command()
    assert (result.exit_code, result.stderr) == (2, broken[1])
