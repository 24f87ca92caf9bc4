"""What lint says of whole sets of profiles, and of what it says nothing."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from opsmesh.handlers.lint.check import lint
from opsmesh.handlers.lint.expressions import placeholders
from opsmesh.handlers.lint.finding import Finding
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.template import Template
from opsmesh.schemas.registry import Registry, load_registry

ROOT = Path(__file__).parents[2]
TWO = "[service.start.failed, python.test.failed]"
TOPICS = """\
version: 1
topics:
  deploy.requested:
    description: somebody wants a deployment
    payload: {target: str, retries: "int?"}
    example: {target: staging}
  deploy.noted:
    description: anything at all
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The topics of opsmesh."""
    return load_registry()


@pytest.fixture
def programs(tmp_path: Path) -> str:
    """A PATH with the programs of the examples."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ps", "df", "notify-send"):
        (folder / name).touch(mode=0o755)
    return str(folder)


def found(folder: Path, text: str, registry: Registry, **how: str | bool) -> list[Finding]:
    """The findings of one file's text."""
    (folder / "profiles.yaml").write_text(text)
    return lint(load_profiles(folder), registry, folder=folder, host="dev", **how)  # type: ignore[arg-type]


def said(folder: Path, text: str, registry: Registry, **how: str | bool) -> list[str]:
    """The findings as texts without their places."""
    return [
        f"{finding.severity}: {finding.message}" for finding in found(folder, text, registry, **how)
    ]


def profile(
    *lines: str, on: str = "service.start.failed", actions: str = "[collect: journal]"
) -> str:
    """A file with the profile p."""
    body = "".join(f"    {line}\n" for line in lines)
    return f"profiles:\n  p:\n    on: {on}\n{body}    actions: {actions}\n"


def test_starter(tmp_path: Path, registry: Registry, programs: str) -> None:
    """The profiles of a first start give no finding, with the one in its comments neither."""
    text = files("opsmesh.handlers.profiles").joinpath("starter.yaml").read_text()
    assert said(tmp_path, text, registry, path=programs) == []
    example = (
        text[text.index("  # tell-me:") :].replace("\n  # ", "\n  ").replace("  # t", "  t", 1)
    )
    text = text[: text.index("  # tell-me:")] + example
    assert said(tmp_path, text, registry, path=programs) == []


def test_readme(tmp_path: Path, registry: Registry, programs: str) -> None:
    """The README's profiles give no finding."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    examples = [block for block in blocks if "profiles:" in block]
    assert examples
    for text in examples:
        assert said(tmp_path, text, registry, path=programs) == []


@pytest.mark.parametrize(
    "text",
    [
        profile("where: event.payload.unit.endsWith('.service') && event.severity == 'error'"),
        profile("where: event.payload.restarts > 3 || event.payload.restarts == null"),
        profile("where: has(event.payload.job_result) && event.payload.job_result != 'timeout'"),
        profile("where: event.exit_code == null || event.exit_code != 0"),
        profile("where: now.getHours() >= 22 || now.getHours() < 6"),
        profile("where: now - timestamp(event.ts_utc) < duration('5m')"),
        profile("where: size(event.payload.unit) > 3 && event.payload.unit.matches('^a.*')"),
        profile("where: event.payload['unit'] in ['a.service', 'b.service']"),
        profile("where: event.payload.restarts > vars.limit", "vars: {limit: 3}"),
        profile("where: event.workspace != '' && !event.workspace.startsWith('/tmp')"),
        profile("where: string(event.payload.exit_status) + '!' == '1!'"),
        profile("where: event.payload.duration_ms / 1000.0 > 5.0", on="python.test.failed"),
        profile("where: event.payload.duration_ms > 5000", on="python.test.failed"),
        profile("where: event.payload.items.exists(i, i.src == i.dst)", on="file.op.move"),
        profile(
            "where: event.payload.steps.all(s, s.outcome == 'done')", on="automation.run.failed"
        )
        .replace("all(s", "exists(s")
        .replace("where: ", "where: event.payload.profile != 'p' && "),
        profile("where: event.payload.args.minutes > 30", on="shell.workflow.triggered"),
        profile("where: event.payload.codes.F401 > 3", on="python.lint.failed"),
        profile(
            "where: event.payload.code == 'E1' || event.payload.code == 4",
            on="editor.lsp.diagnostic.error",
        ),
        profile(
            'where: last("python.test.failed") == null || '
            'last("python.test.failed", "any").payload.nodeid != ""'
        ),
        profile(
            "where: event.payload.unit == 'x' || event.topic == 'service.unit.flapping'",
            on="service.>",
        ),
        profile("where: has(event.payload.unit) && event.payload.unit == 'x'", on=TWO),
        profile("where: '!has(event.payload.unit) || event.payload.unit == \"x\"'", on=TWO),
        profile("where: 'has(event.payload.unit) ? event.payload.unit == \"x\" : true'", on=TWO),
        profile('where: \'"unit" in event.payload && event.payload.unit == "x"\'', on=TWO),
        profile("where: event.payload.unit == 'x' && has(event.payload.unit)", on=TWO),
        profile(
            "where: event.topic == 'python.test.failed' && event.payload.phase == 'call' "
            "|| event.topic == 'service.start.failed' && event.payload.unit == 'x'",
            on=TWO,
        ),
        profile(
            'where: \'event.topic.startsWith("python") ? event.payload.phase == "call" : '
            'event.payload.unit == "x"\'',
            on=TWO,
        ),
        profile("unless: {on: editor.save, within: 5m, where: event.payload.path != ''}"),
        profile("unless: {on: service.unit.flapping, within: 5m, key: [host, payload.unit]}"),
        profile("correlate: {within: 5m, key: [host, workspace], ordered: true}", on=TWO),
        profile(
            "debounce: {window: 30s, max_wait: 5m, key: [topic, payload.unit], edge: trailing}"
        ),
        profile("debounce: {window: 30s, key: [payload.unit]}", on=TWO),
        profile("collect: {window: 1m, max: 20, key: payload.unit}"),
        profile("debounce: {window: 1m}", "collect: {window: 30s, key: host}"),
        profile("throttle: {at_most: 3, per: 1h, key: payload.unit}"),
        profile("debounce: {window: 1m}", "throttle: {at_most: 3, per: 1h}"),
        profile("limits: {runs: 20, per: 1h}", "throttle: {at_most: 30, per: 1h}"),
        profile("concurrency: {mode: single, key: payload.unit}", "run_on: dev", "state: shadow"),
        profile("retry: {attempts: 3}", "timeout: 2m", "false_positives: {budget: 5%}", "hops: 2"),
        profile(
            actions="\n      - {id: b, collect: [journal, {file: '${{ event.payload.unit }}'}]}\n"
            "      - command: [df, '${{ steps.b.path }}', '$${{ evnt }}', '${{ run.attempt }}']\n"
            "      - emit: {topic: service.unit.flapping, payload: '${{ event.payload }}'}"
        )
        .replace("on: service.start.failed", "on: editor.save")
        .replace("event.payload.unit", "host"),
    ],
)
def test_clean(text: str, tmp_path: Path, registry: Registry, programs: str) -> None:
    """A profile without a mistake gives no finding."""
    assert said(tmp_path, text, registry, path=programs) == []


def test_topics_of_your_own(tmp_path: Path, programs: str) -> None:
    """The fields of topics.yaml are known; a topic that names no fields takes any."""
    (tmp_path / "topics.yaml").write_text(TOPICS)
    registry = load_registry(tmp_path / "topics.yaml")
    assert registry.problems == []
    wrong = profile("where: event.payload.targt == 'x'", on="deploy.requested")
    assert said(tmp_path, wrong, registry) == [
        "error: deploy.requested has no payload field 'targt'"
    ]
    wrong = profile("where: event.payload.retries == 'x'", on="deploy.requested")
    assert "is never true" in said(tmp_path, wrong, registry)[0]
    open_ = profile("where: event.payload.anything == 'x'", on="deploy.noted")
    assert said(tmp_path, open_, registry) == []


def test_topics_that_a_profile_emits(tmp_path: Path, registry: Registry) -> None:
    """A topic that is not registered is told where it is emitted, not where it is heard."""
    text = (
        "profiles:\n  a: {on: editor.save, actions: [emit: build.wanted]}\n"
        "  b: {on: [build.wanted], actions: [collect: journal]}\n"
        "  c: {on: [build.>], actions: [collect: journal]}\n"
    )
    [finding] = found(tmp_path, text, registry)
    assert (finding.severity, finding.line) == ("warning", 2)
    [finding] = found(tmp_path, text, registry, strict_topics=True)
    assert finding.severity == "error"


def test_files_are_named_as_the_loader_names_them(tmp_path: Path, registry: Registry) -> None:
    """A finding in profiles.d is at that file's line, beside the loader's own errors."""
    (tmp_path / "profiles.d").mkdir()
    text = profile("where: event.sevrity == 'error'")
    (tmp_path / "profiles.d" / "more.yaml").write_text("# a comment\n" + text.replace("p:", "q:"))
    texts = [str(one) for one in found(tmp_path, profile("debunce: {}"), registry)]
    assert texts == [
        "profiles.d/more.yaml:5:18: an event has no field 'sevrity'",
        "profiles.yaml:4:5: unknown key 'debunce' in profile 'p'",
    ]


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("where: event.sevrity == 'x'", (4, 18)),
        ("where: \"event.sevrity == 'x'\"", (4, 19)),
        ("where: |\n      event.host != '' &&\n        event.sevrity == 'x'", (6, 15)),
        ("where: >\n      event.host != '' &&\n      event.sevrity == 'x'", (4, 12)),
        ("where: 'event.sevrity == ''x'''", (4, 12)),
        ("where:\n      event.sevrity == 'x'", (5, 13)),
    ],
)
def test_places(written: str, place: tuple[int, int], tmp_path: Path, registry: Registry) -> None:
    """A finding is at the character where YAML keeps the text as it is, else at its value."""
    [finding] = found(tmp_path, profile(written), registry)
    assert (finding.line, finding.column) == place


def test_a_text_that_profiles_share_is_told_once(tmp_path: Path, registry: Registry) -> None:
    """A mistake behind a YAML anchor is one finding."""
    text = (
        "x-where: &where event.sevrity == 'x'\nprofiles:\n"
        "  a: {on: editor.save, where: *where, actions: [collect: journal]}\n"
        "  b: {on: editor.save, where: *where, actions: [collect: journal]}\n"
    )
    [finding] = found(tmp_path, text, registry)
    assert (finding.line, finding.column) == (1, 23)


def test_a_file_that_is_gone(tmp_path: Path, registry: Registry) -> None:
    """A file that was removed after it was loaded still has its findings, at the profile."""
    (tmp_path / "profiles.yaml").write_text(profile("where: event.sevrity == 'x'"))
    profiles = load_profiles(tmp_path)
    (tmp_path / "profiles.yaml").unlink()
    [finding] = lint(profiles, registry, folder=tmp_path, host="dev")
    assert (finding.line, finding.column) == (2, 1)


def test_loops_that_a_where_breaks(tmp_path: Path, registry: Registry) -> None:
    """A loop is none when a `where` can be seen to refuse the event; its own name, too."""
    own = profile("where: event.payload.profile != 'p'", on="automation.run.>")
    assert said(tmp_path, own, registry) == []
    other = profile("where: event.component != 'p'", on="automation.run.failed")
    assert said(tmp_path, other, registry) == []
    emitted = profile(
        "where: event.payload.tool != vars.own",
        "vars: {own: opsmesh}",
        on="config.drift.detected",
        actions="[emit: {topic: config.drift.detected, payload: {tool: opsmesh, paths: []}}]",
    )
    assert said(tmp_path, emitted, registry) == []
    open_ = emitted.replace("payload: {tool: opsmesh", "payload: {tool: stow")
    assert said(tmp_path, open_, registry) == ["warning: loop: p → config.drift.detected → p"]


def test_loops_end(tmp_path: Path, registry: Registry) -> None:
    """A profile that is disabled, or takes no event that another caused, is in no loop."""
    for line in ("state: disabled", "hops: 0"):
        assert said(tmp_path, profile(line, on="automation.run.failed"), registry) == []
    shadow = profile("state: shadow", on="automation.run.failed")
    assert said(tmp_path, shadow, registry) == ["warning: loop: p → automation.run.failed → p"]


def test_a_long_loop_is_told_once(tmp_path: Path, registry: Registry) -> None:
    """A loop of many profiles is one finding, which names the way around."""
    text = "profiles:\n" + "".join(
        f"  p{n}: {{on: ring.n{n}, actions: [emit: ring.n{(n + 1) % 5}]}}\n" for n in range(5)
    )
    loops = [one for one in said(tmp_path, text, registry) if "loop:" in one]
    way = " → ".join(part for n in range(5) for part in (f"p{n}", f"ring.n{(n + 1) % 5}"))
    assert loops == [f"error: loop: {way} → p0"]


def test_programs(tmp_path: Path, registry: Registry, programs: str) -> None:
    """A program is looked for where the step would find it; with strict its absence is an error."""
    script = tmp_path / "bin" / "plain"
    script.touch(mode=0o644)
    for argv, env, wanted in (
        ("[df]", "", []),
        (f"[{tmp_path}/bin/df]", "", []),
        (f"[{script}]", "", [f"warning: program '{script}' is not executable"]),
        ("[/nowhere/df]", "", ["warning: program '/nowhere/df' is not there"]),
        ("[./df]", f", cwd: {tmp_path}/bin", []),
        ("[df]", ", env: {PATH: /nowhere}", ["warning: program 'df' is not in PATH"]),
        ("['${{ vars.tool }}']", "", []),
    ):
        text = profile("vars: {tool: df}", actions=f"[command: {{argv: {argv}{env}}}]")
        assert said(tmp_path, text, registry, path=programs) == wanted
    text = profile(actions="[command: [nowhere]]")
    assert said(tmp_path, text, registry, path=programs, strict=True) == [
        "error: program 'nowhere' is not in PATH"
    ]


def test_placeholders_are_those_of_templates() -> None:
    """The placeholders that lint reads are those that the runner answers."""
    for text, inside in (
        ("a ${{ event.topic }} b ${{host}}", [" event.topic ", "host"]),
        ("$${{ event.nothing }} ${{ host }}", [" host "]),
        ("${{ \"}}\" + 'x}}' }}", [" \"}}\" + 'x}}' "]),
        ("none", []),
    ):
        assert [one for _, one in placeholders(text)] == inside
        Template(text)
        assert all(text[at:].startswith(one) for at, one in placeholders(text))


def test_loops_through_agents(tmp_path: Path, registry: Registry) -> None:
    """What an agent's answer becomes can fire the profile that asked it."""
    text = (
        "profiles:\n"
        "  p: {{on: a2a.task.failed, {where}actions: [a2a: {{agent: far, topic: far.said}}]}}\n"
        "  q: {{on: far.said, actions: [emit: a2a.task.failed]}}\n"
    )
    loops = [one for one in said(tmp_path, text.format(where=""), registry) if "loop:" in one]
    assert loops == [
        "error: loop: p → a2a.task.failed → p",
        "error: loop: q → a2a.task.failed → p → far.said → q",
    ]
    other = "where: event.payload.agent == 'near', "
    loops = [one for one in said(tmp_path, text.format(where=other), registry) if "loop:" in one]
    assert loops == ["error: loop: p → far.said → q → a2a.task.failed → p"]


def test_agents(tmp_path: Path, registry: Registry) -> None:
    """An agent that the settings do not have, and a run that ends before its task may, are told."""
    text = profile("timeout: 1h", on="service.start.failed", actions="[a2a: revewer]")
    (tmp_path / "profiles.yaml").write_text(text)
    found_in = load_profiles(tmp_path)
    findings = lint(found_in, registry, folder=tmp_path, host="dev", agents={"reviewer": 1})
    [finding] = findings
    assert (finding.severity, finding.message) == (
        "warning",
        "agent 'revewer' is not in a2a_agents",
    )
    assert "'reviewer'" in finding.hint
    short = profile("timeout: 1m", on="service.start.failed", actions="[a2a: reviewer]")
    assert said(tmp_path, short, registry) == [
        "warning: the task may take 10m, and the profile is stopped after 1m: it is canceled then"
    ]
