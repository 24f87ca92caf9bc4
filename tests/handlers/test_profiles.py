"""Profile files: what they mean, and every error with its place."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from opsmesh.handlers.actions.emit import Emit
from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles import yamlfile
from opsmesh.handlers.profiles.profile import (
    Profile,
    ProfileSet,
    from_source,
    json_schema,
    load_file,
    load_profiles,
    parse,
)
from opsmesh.handlers.profiles.spec import FalsePositivesSpec
from opsmesh.handlers.runs.concurrency import Concurrency
from opsmesh.router.conditions import Expression, Last
from opsmesh.router.retry import Retry
from opsmesh.router.stages import (
    COLLECT_MAX,
    DEFAULT_KEY,
    Collect,
    Correlate,
    Debounce,
    Limits,
    Stage,
    Throttle,
    Unless,
)

GOOD = """\
version: 1
profiles:
  triage-failed-service:
    owner: desktop
    on: [service.start.failed, python.>]
    where: event.payload.unit.endsWith(".service")
    debounce: {window: 30s, max_wait: 5m}
    concurrency: {limit: 2}
    retry: {attempts: 3, initial: 1s, max: 1m, jitter: 0.1}
    timeout: 90s
    vars: {level: 3}
    actions:
      - id: evidence
        collect: [unit_status, journal, unit_file]
      - command: [systemctl, --user, restart, "${{ event.payload.unit }}"]
        timeout: 10s
        on_unknown: skip
        continue_on_error: true
"""


def load(folder: Path, text: str, **others: str) -> ProfileSet:
    (folder / "profiles.yaml").write_text(text)
    for name, content in others.items():
        (folder / "profiles.d").mkdir(exist_ok=True)
        (folder / "profiles.d" / f"{name}.yaml").write_text(content)
    return load_profiles(folder)


def one(folder: Path, text: str) -> Profile:
    found = load(folder, text)
    assert found.errors == []
    [profile] = found.profiles.values()
    return profile


def with_key(line: str) -> str:
    """A profile `p` with one further line."""
    return f"profiles:\n  p:\n    on: a.b\n    actions: [emit: b.c]\n    {line}\n"


def test_profile(tmp_path: Path) -> None:
    """A profile has what its file says, and defaults for the rest."""
    profile = one(tmp_path, GOOD)
    assert profile.name == "triage-failed-service"
    assert (profile.owner, profile.run_on, profile.state) == ("desktop", "origin", "enabled")
    assert profile.concurrency == Concurrency(mode="parallel", limit=2)
    assert (profile.timeout, profile.false_positives) == (90.0, None)
    assert profile.retry == Retry(attempts=3, initial_s=1, max_s=60, jitter=0.1)
    first, second = profile.steps
    assert (first.id, first.timeout, first.on_unknown, first.continue_on_error) == (
        "evidence",
        None,
        "retry",
        False,
    )
    assert (second.id, second.timeout, second.on_unknown, second.continue_on_error) == (
        "command_1",
        10.0,
        "skip",
        True,
    )
    assert (profile.file, profile.line) == ("profiles.yaml", 3)


def test_rule(tmp_path: Path) -> None:
    """A profile gives the decision engine its rule."""
    profile = one(tmp_path, GOOD)
    rule = profile.rule
    assert rule.on == profile.on == ("service.start.failed", "python.>")
    assert rule.where is not None
    assert rule.where.text == 'event.payload.unit.endsWith(".service")'
    assert rule.debounce == Debounce(window_us=30_000_000, max_wait_us=300_000_000)
    assert (rule.hash, rule.max_hops, rule.vars) == (profile.hash, 8, {"level": 3})
    shadow = profile.with_state("shadow")
    assert (shadow.state, shadow.rule.state, shadow.hash) == ("shadow", "shadow", profile.hash)


def test_hash(tmp_path: Path) -> None:
    """The hash changes with what a profile does; not with order, comments, form or state."""
    base = one(tmp_path, with_key("debounce: {window: 60s, key: topic}"))
    same = one(
        tmp_path,
        "# said otherwise\nprofiles:\n  p:\n    state: shadow\n"
        "    actions:\n    - emit: {topic: b.c}\n"
        "    debounce:\n      key: [event.topic]\n      window: 1m\n    on: [a.b]\n    owner: ''\n",
    )
    assert same.hash == base.hash
    assert same != base
    assert same == base.with_state("shadow")
    assert len(base.hash) == 16
    for line in ("debounce: {window: 61s, key: topic}", "owner: x", "hops: 3"):
        assert one(tmp_path, with_key(line)).hash != base.hash


S = 1_000_000
SAME_TOPIC = "unless: {on: a.b, within: 1m, where: event.payload.ok}"


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("debounce: {window: 1m}", Debounce(window_us=60 * S, key=DEFAULT_KEY)),
        (
            "debounce: {window: 1m, max_wait: 5m, key: event.payload.unit, edge: trailing}",
            Debounce(window_us=60 * S, max_wait_us=300 * S, key=("payload.unit",), edge="trailing"),
        ),
        ("throttle: {at_most: 3, per: 1h}", Throttle(at_most=3, per_us=3600 * S)),
        (
            "throttle: {at_most: 3, per: 500ms, key: [host, payload.a.b]}",
            Throttle(at_most=3, per_us=S // 2, key=("host", "payload.a.b")),
        ),
        ("collect: {window: 1m}", Collect(window_us=60 * S, max=COLLECT_MAX)),
        (
            "collect: {window: 1m, max: 2, key: workspace}",
            Collect(window_us=60 * S, max=2, key=("workspace",)),
        ),
        ("unless: {on: a.c, within: 1m}", Unless(on=("a.c",), within_us=60 * S)),
        (
            "unless: {on: [a.c, x.>], within: 1m, key: []}",
            Unless(on=("a.c", "x.>"), within_us=60 * S, key=()),
        ),
        (SAME_TOPIC, Unless(on=("a.b",), within_us=60 * S)),
        ("limits: {runs: 20, per: 1h}", Limits(at_most=20, per_us=3600 * S)),
    ],
)
def test_stages(tmp_path: Path, line: str, stage: Stage) -> None:
    """Each clause that remembers becomes a stage of the rule, with its defaults."""
    assert one(tmp_path, with_key(line)).rule.stages == (stage,)


@pytest.mark.parametrize(
    ("clause", "stage"),
    [
        (
            "{within: 5m}",
            Correlate(parts=("a.b", "c.d"), within_us=300 * S, key=("host",), ordered=False),
        ),
        (
            "{within: 5m, key: payload.unit, ordered: true}",
            Correlate(parts=("a.b", "c.d"), within_us=300 * S, key=("payload.unit",), ordered=True),
        ),
    ],
)
def test_correlate(tmp_path: Path, clause: str, stage: Stage) -> None:
    """The parts of `correlate` are the topics of `on`, in their order."""
    text = f"profiles: {{p: {{on: [a.b, c.d], correlate: {clause}, actions: [emit: x.y]}}}}"
    assert one(tmp_path, text).rule.stages == (stage,)


def test_order_of_stages(tmp_path: Path) -> None:
    """However a profile is written, its stages are in the order of an event's way."""
    text = with_key("limits: {runs: 9, per: 1h}")
    for line in (
        "collect: {window: 1m}",
        "throttle: {at_most: 1, per: 1m}",
        "unless: {on: a.c, within: 1m}",
        "debounce: {window: 1m}",
    ):
        text += f"    {line}\n"
    names = [stage.name for stage in one(tmp_path, text).rule.stages]
    assert names == ["unless", "debounce", "collect", "throttle", "limits"]


def test_conditions(tmp_path: Path) -> None:
    """Both conditions of a profile may ask for `now` and for the last event of a topic."""
    profile = one(
        tmp_path,
        with_key('where: now.getHours() < 6 && last("mesh.ready") != null')
        + '    unless: {on: a.c, within: 1m, where: \'last("mesh.calm", "any") == null\'}\n',
    )
    assert profile.rule.unless_where == Expression('last("mesh.calm", "any") == null')
    assert profile.rule.last == (Last("mesh.calm", True), Last("mesh.ready"))
    assert set(profile.rule.listens) == {"a.b", "a.c", "mesh.calm", "mesh.ready"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", Concurrency()),
        ("concurrency: {limit: 4}", Concurrency(mode="parallel", limit=4)),
        (
            "concurrency: {mode: queued, limit: 2, key: payload.unit}",
            Concurrency(mode="queued", limit=2, key=("payload.unit",)),
        ),
        ("concurrency: {mode: single, key: [host]}", Concurrency(mode="single", key=("host",))),
        ("concurrency: {mode: restart}", Concurrency(mode="restart")),
    ],
)
def test_concurrency(tmp_path: Path, line: str, expected: Concurrency) -> None:
    """A profile says how many of its runs stand beside each other, and for which key."""
    assert one(tmp_path, with_key(line)).concurrency == expected


def test_false_positives(tmp_path: Path) -> None:
    """A profile may have a budget of false alarms, as a share of its last judged runs."""
    budget = one(tmp_path, with_key("false_positives: {budget: 2.5%}")).false_positives
    assert budget == FalsePositivesSpec(budget="2.5%", of_last=50, then="tell")  # type: ignore[arg-type]
    assert budget.budget == 0.025
    line = "false_positives: {budget: 100 %, of_last: 10, then: shadow}"
    budget = one(tmp_path, with_key(line)).false_positives
    assert budget is not None
    assert (budget.budget, budget.of_last, budget.then) == (1.0, 10, "shadow")


def test_describe(tmp_path: Path) -> None:
    """A profile tells its content as JSON, with each step's action."""
    content = json.loads(json.dumps(one(tmp_path, GOOD).describe()))
    assert content["retry"]["attempts"] == 3
    assert content["actions"][1]["command"]["argv"][3] == "${{ event.payload.unit }}"


@pytest.mark.parametrize("state", ["enabled", "shadow", "disabled"])
def test_states(tmp_path: Path, state: str) -> None:
    """A profile is enabled, shadow or disabled."""
    assert one(tmp_path, with_key(f"state: {state}")).state == state


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "debunce: {window: 1s}",
            "5:5: unknown key 'debunce' in profile 'p'; did you mean 'debounce'?",
        ),
        ("owner: 3", "5:12: owner: should be a valid string, not 3 in profile 'p'"),
        ("where: event.x ==", "5:12: where: 'event.x ==': the expression ends too early (column"),
        ("where: evnt.x", "5:12: where: unknown name 'evnt' in profile 'p'; did you mean 'event'?"),
        ("where: steps.x", "unknown name 'steps' in profile 'p'; there are event, host, now, vars"),
        ("state: enabeld", "5:12: state 'enabeld' is not one of enabled, shadow, disabled"),
        ("debounce: {}", "5:5: key 'window' is missing"),
        ("debounce: {window: 30}", "5:24: window: 30 is no duration"),
        ("debounce: {window: 30x}", "5:24: window: duration '30x' is not a number with a unit"),
        ("debounce: {window: 2m, max_wait: 1m}", "debounce: max_wait is shorter than window"),
        ("debounce: {window: 1s, key: [topc]}", "no field 'topc' in profile 'p'; did you mean 'to"),
        ("debounce: {window: 1s, wndow: 1s}", "unknown key 'wndow' of 'debounce' in profile 'p'"),
        ("concurrency: {limit: 0}", "5:26: limit: should be greater than or equal to 1, not 0"),
        ("retry: {max: 1s}", "retry: max is shorter than initial"),
        ("retry: {backof: fixed}", "5:13: unknown key 'backof' of 'retry' in profile 'p'; did you"),
        ("debounce: {window: 0}", "5:24: window: should be greater than 0"),
        ("debounce: {window: 1s, edge: x}", "5:34: edge 'x' is not one of leading, trailing"),
        ("throttle: {per: 1m}", "5:5: key 'at_most' is missing in 'throttle'"),
        ("throttle: {at_most: 0, per: 1m}", "5:25: at_most: should be greater than or equal to 1"),
        ("throttle: {at_most: 1001, per: 1m}", "at_most: should be less than or equal to 1000"),
        ("throttle: {at_most: 1, per: 60}", "5:33: per: 60 is no duration in profile 'p'"),
        ("throttle: {at_most: 1, per: 1m, key: unit}", "5:42: key: an event has no field 'unit'"),
        (
            "throttle: {atmost: 1, at_most: 1, per: 1m}",
            "5:16: unknown key 'atmost' of 'throttle' in profile 'p'; did you mean 'at_most'?",
        ),
        ("collect: {max: 5}", "5:5: key 'window' is missing in 'collect'"),
        ("collect: {window: 1m, max: 1}", "5:32: max: should be greater than or equal to 2, not 1"),
        ("collect: {window: 1m, max: 1001}", "max: should be less than or equal to 1000, not 1001"),
        ("correlate: {within: 1m}", "5:5: correlate needs two topics or more in 'on'"),
        ("unless: {on: a.c}", "5:5: key 'within' is missing in 'unless'"),
        ("unless: {on: [], within: 1m}", "5:18: on is empty"),
        ("unless: {on: a.B, within: 1m}", "5:18: on: 'a.B' matches no topic"),
        ("unless: {on: [a.c, a.*], within: 1m}", "5:18: on: 'a.c' and 'a.*' match the same"),
        (
            "unless: {on: 'a.*', within: 1m}",
            "5:5: 'a.b' in 'on' and 'a.*' in 'unless' match the same topics in profile 'p'; "
            "tell them apart with a 'where' in 'unless'",
        ),
        ("unless: {on: a.c, within: 1m, where: evnt}", "where: unknown name 'evnt' in profile 'p'"),
        ("unless: {on: a.c, within: 1m, where: last(a.b)}", "last() takes a topic in quotes"),
        ("where: last(a.b)", "5:12: where: 'last(a.b)': last() takes a topic in quotes"),
        ("limits: {per: 1h}", "5:5: key 'runs' is missing in 'limits'"),
        ("limits: {runs: 1, per: 1h, key: host}", "5:32: unknown key 'key' of 'limits'"),
        ("concurrency: {mode: que}", "5:25: mode 'que' is not one of parallel, queued, single"),
        (
            "concurrency: {mode: single, limit: 2}",
            "5:18: concurrency: mode single has a limit of 1 in profile 'p'",
        ),
        ("concurrency: {mode: restart, limit: 2}", "concurrency: mode restart has a limit of 1"),
        ("concurrency: {key: unit}", "5:24: key: an event has no field 'unit'"),
        ("concurrency: {key: payload..x}", "'payload..x' is no path of fields, like payload.unit"),
        ("concurrency: {limit: 257}", "limit: should be less than or equal to 256, not 257"),
        ("false_positives: {}", "5:5: key 'budget' is missing in 'false_positives'"),
        ("false_positives: {budget: 0.05}", "5:31: budget: 0.05 is no share"),
        ("false_positives: {budget: 101%}", "'101%' is no share in profile 'p'; write it in perc"),
        ("false_positives: {budget: 5%, of_last: 0}", "of_last: should be greater than or equal"),
        ("false_positives: {budget: 5%, then: stop}", "then 'stop' is not one of tell, shadow"),
        ("slo: {}", "5:10: slo: no objective in profile 'p'; say one of latency_p50"),
        ("slo: {success: 99}", "5:20: success: 99 is no share in profile 'p'; write it"),
        (
            "slo: {sucess: 99%}",
            "unknown key 'sucess' of 'slo' in profile 'p'; did you mean 'success'?",
        ),
        ("concurrency: 2", "concurrency: should be a mapping of keys to values, not 2"),
        ("on: c.d", "5:5: key 'on' a second time; line 3 has it already"),
    ],
)
def test_profile_errors(tmp_path: Path, line: str, said: str) -> None:
    """A wrong key or value of a profile is named with its place and the nearest valid one."""
    found = load(tmp_path, with_key(line))
    assert found.profiles == {}
    [error] = found.errors
    assert said in str(error)
    assert str(error).startswith("profiles.yaml:5:")


def test_correlate_and_unless_do_not_go_together(tmp_path: Path) -> None:
    """What makes no sense together is refused at the clause that is named first."""
    text = (
        "profiles:\n  p:\n    on: [a.b, c.d]\n    actions: [emit: x.y]\n"
        "    unless: {on: e.f, within: 1m}\n    correlate: {within: 1m}\n"
    )
    [error] = load(tmp_path, text).errors
    assert str(error) == (
        "profiles.yaml:6:5: correlate and unless do not go together in profile 'p'; "
        "write two profiles"
    )


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ("[]", "on is empty"),
        ("x", "'x' matches no topic"),
        ("a.B", "'a.B' matches no topic"),
        ("a.>.b", "'a.>.b' matches no topic"),
        ("[a.*, '*.b']", "'a.*' and '*.b' match the same topics"),
        ("[a.b, a.>]", "'a.b' and 'a.>' match the same topics"),
    ],
)
def test_topic_errors(tmp_path: Path, on: str, said: str) -> None:
    """A pattern that matches no topic, or overlaps another one, is refused."""
    found = load(tmp_path, f"profiles: {{p: {{on: {on}, actions: [emit: x.y]}}}}\n")
    assert said in str(found.errors[0])


@pytest.mark.parametrize("on", ["a.*", "a.>", "'*.b'", "[a.*.c, a.*]", "[a.b, a.c, b.>]", "a.b"])
def test_topics(tmp_path: Path, on: str) -> None:
    """Patterns are those of NATS, one or a list."""
    assert load(tmp_path, f"profiles: {{p: {{on: {on}, actions: [emit: x.y]}}}}\n").errors == []


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("{comand: [ls]}", "unknown key 'comand' in step in profile 'p'; did you mean 'command'?"),
        ("{id: x}", "a step needs an action: one of "),
        ("{command: [ls], emit: a.b}", "a step has one action"),
        ("{command: ls -l}", "command: must be a list of arguments, like ['ls', '-l']"),
        (
            "{command: {argv: [ls], cwdd: /}}",
            "unknown key 'cwdd' in profile 'p'; did you mean 'cwd",
        ),
        (
            "{command: [ls, '${{ evnt }}']}",
            "unknown name 'evnt' in profile 'p'; did you mean 'event'",
        ),
        ("{command: [ls], id: Not-Good}", "id: "),
        ("{command: [ls], timeout: 3}", "timeout: 3 is no duration"),
        ("{command: [ls], on_unknown: retri}", "did you mean 'retry'?"),
        ("{emit: {topic: A}}", "topic 'A' is not 2 to 6 tokens"),
        ("{collect: [jurnal]}", "'jurnal' is not one of config_changes, "),
        ("{collect: [{journal: {lnes: 1}}]}", "unknown key 'lnes' of 'journal'"),
        ("ls", "should be a mapping of keys to values, not 'ls'"),
    ],
)
def test_step_errors(tmp_path: Path, step: str, said: str) -> None:
    """A wrong step is named with its place and the nearest valid key."""
    text = f"profiles:\n  p:\n    on: a.b\n    actions:\n      - {step}\n"
    found = load(tmp_path, text)
    assert found.profiles == {}
    [error] = found.errors
    assert said in str(error)
    assert (error.line, error.file) == (5, "profiles.yaml")


def test_position_within_a_short_form(tmp_path: Path) -> None:
    """An error in an argument list that is written without `argv` has the argument's own line."""
    text = "profiles:\n  p:\n    on: a.b\n    actions:\n    - command:\n      - ls\n      - true\n"
    [error] = load(tmp_path, text).errors
    assert (error.line, error.column) == (7, 9)


def test_all_errors(tmp_path: Path) -> None:
    """Every error of every file is reported, in order; a profile without one is in the set."""
    bad = (
        "profiles:\n  a: {on: x, actions: [{}]}\n  good: {on: a.b, actions: [emit: b.c]}\n  B: 3\n"
    )
    found = load(tmp_path, bad, more="nonsense: 1\nprofiles: 3\n", torn="a: [\n")
    assert list(found.profiles) == ["good"]
    assert [(error.file, error.line) for error in found.errors] == [
        ("profiles.yaml", 2),
        ("profiles.yaml", 2),
        ("profiles.yaml", 4),
        ("profiles.yaml", 4),
        ("profiles.d/more.yaml", 1),
        ("profiles.d/more.yaml", 2),
        ("profiles.d/torn.yaml", 2),
    ]


def test_same_name_twice(tmp_path: Path) -> None:
    """A profile defined in two files is an error that names both places."""
    found = load(tmp_path, with_key(""), more=with_key(""))
    [error] = found.errors
    said = "profiles.d/more.yaml:2:3: profile 'p' is already defined at profiles.yaml:2"
    assert str(error) == said


def test_same_id_twice(tmp_path: Path) -> None:
    """Two steps with one id are an error."""
    step = "{id: x, emit: a.b}"
    [error] = load(tmp_path, f"profiles: {{p: {{on: a.b, actions: [{step}, {step}]}}}}").errors
    assert "two steps have the id 'x'" in str(error)


def test_folder(tmp_path: Path) -> None:
    """profiles.d adds to profiles.yaml; other files and no files at all are no profiles."""
    assert load_profiles(tmp_path / "nowhere") == ProfileSet()
    (tmp_path / "profiles.d").mkdir()
    (tmp_path / "profiles.d" / "note.txt").write_text("[")
    (tmp_path / "profiles.d" / ".editing.yaml").write_text("[")
    found = load(tmp_path, "", one=with_key(""))
    assert list(found.profiles) == ["p"]
    assert found.errors == []


def test_shared_parts(tmp_path: Path) -> None:
    """A key that begins with x- may hold parts that profiles share."""
    text = "x-retry: &r {attempts: 9}\n" + with_key("retry: *r")
    assert one(tmp_path, text).retry.attempts == 9


def test_load_file(tmp_path: Path) -> None:
    """The profiles of one file are read wherever it lies; errors name it."""
    path = tmp_path / "elsewhere.yaml"
    path.write_text(GOOD)
    found = load_file(path)
    assert (list(found.profiles), found.errors) == (["triage-failed-service"], [])
    assert found.profiles["triage-failed-service"] == one(tmp_path, GOOD)
    path.write_text("profiles:\n  p: {on: a.b}\n")
    [error] = load_file(path).errors
    assert (error.line, "key 'actions' is missing" in str(error)) == (2, True)
    assert str(error).partition(":")[0].endswith("elsewhere.yaml")
    path.write_text("a: [\n")
    assert load_file(path).profiles == {}
    assert len(load_file(path).errors) == 1
    [error] = load_file(tmp_path / "nowhere.yaml").errors
    assert "nowhere.yaml" in str(error)


def test_parse() -> None:
    """A document that is no file is read alike."""
    found = parse(yamlfile.parse(with_key("owner: me").encode(), file="text"))
    assert (found.profiles["p"].owner, found.profiles["p"].file) == ("me", "text")
    [error] = parse(yamlfile.parse(b"profiles: 3", file="text")).errors
    assert str(error).startswith("text:1:11: ")


ALL_KEYS = """\
    description: all keys
    state: shadow
    where: 'last("mesh.ready") != null'
    unless: {on: [a.c], within: 1m, where: event.payload.ok}
    debounce: {window: 30s, edge: trailing}
    collect: {window: 1m}
    throttle: {at_most: 3, per: 1h, key: host}
    limits: {runs: 9, per: 1d}
    concurrency: {mode: queued, key: payload.unit}
    retry: {attempts: 2}
    false_positives: {budget: 5%}
    hops: 3
"""


#: Texts that JSON writes otherwise than YAML does.
ODD = with_key(
    r"""vars: {a: "🚀\u2028\x7f\t/", "true": "1:30", e: 1e3, f: 1.0, n: null, "~": [0x1F]}"""
)


@pytest.mark.parametrize("text", [with_key(""), with_key(ALL_KEYS.strip()), GOOD, ODD])
def test_from_source(tmp_path: Path, text: str) -> None:
    """What a profile's file says of it gives the same profile again, also through JSON."""
    profile = one(tmp_path, text)
    again = from_source(profile.name, json.loads(json.dumps(profile.source)))
    assert again == profile
    assert (again.hash, again.state, again.rule) == (profile.hash, profile.state, profile.rule)
    assert again.content == profile.content
    assert again.source == profile.source


def test_from_a_source_of_another_version() -> None:
    """A text that this version does not take is one error, which names the profile."""
    with pytest.raises(ConfigError, match=r"p:1:.*unknown key 'shiny' in profile 'p'"):
        from_source("p", {"on": "a.b", "actions": [{"emit": "b.c"}], "shiny": 1})


def plug_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *, value: str, code: str) -> None:
    """Install a distribution with one action named `hello`."""
    (folder / "stranger.py").write_text(code)
    facts = folder / "stranger-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[opsmesh.actions]\nhello = {value}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "stranger", raising=False)


def test_broken_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken plug-in is named and skipped; only a profile that needs it is wrong."""
    folder = tmp_path / "site"
    folder.mkdir()
    plug_in(folder, monkeypatch, value="stranger:Nope", code="x = 1\n")
    found = load(tmp_path, with_key("") + "  q: {on: a.b, actions: [hello: 1]}\n")
    assert list(found.profiles) == ["p"]
    [problem] = found.problems
    assert "action 'hello' (stranger:Nope of stranger 1.0): AttributeError" in problem
    assert "the plug-in for 'hello' is broken" in str(found.errors[0])


def test_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's action comes in by the same door as ours."""
    folder = tmp_path / "site"
    folder.mkdir()
    code = """
class Hello:
    key = "hello"
    @classmethod
    def parse(cls, value):
        if value != "world":
            raise ValueError("only the world")
        return cls()
    def describe(self):
        return {}
    async def run(self, ctx):
        raise NotImplementedError
"""
    plug_in(folder, monkeypatch, value="stranger:Hello", code=code)
    found = load(tmp_path, "profiles: {p: {on: a.b, actions: [hello: world]}}\n")
    assert [step.id for step in found.profiles["p"].steps] == ["hello_0"]
    found = load(tmp_path, "profiles: {p: {on: a.b, actions: [hello: x]}}\n")
    assert "hello: only the world in profile 'p'" in str(found.errors[0])


def test_json_schema() -> None:
    """The schema for editors names every key, and each of its references is there."""
    schema = json_schema()
    profile = schema["$defs"]["ProfileSpec"]["properties"]
    step = schema["$defs"]["StepSpec"]["properties"]
    assert {"on", "where", "unless", "correlate", "debounce", "collect"} <= profile.keys()
    assert {"throttle", "limits", "concurrency", "false_positives", "actions"} <= profile.keys()
    assert {"id", "command", "emit", "collect"} <= step.keys()
    assert _references(schema) <= {f"#/$defs/{name}" for name in schema["$defs"]}


def _references(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(_references, value))
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if "$ref" in value else set()
    return own.union(*map(_references, value.values()))


def test_on_unknown_of_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An action may say what becomes of its steps when nobody knows how they went; a step's own
    word counts more, and nonsense is the plug-in's error."""
    text = """
profiles:
  p:
    on: a.b
    actions:
      - emit: b.c
      - {emit: b.d, on_unknown: skip}
"""
    assert [step.on_unknown for step in one(tmp_path, text).steps] == ["retry", "skip"]
    monkeypatch.setattr(Emit, "on_unknown", "ask", raising=False)
    assert [step.on_unknown for step in one(tmp_path, text).steps] == ["ask", "skip"]
    monkeypatch.setattr(Emit, "on_unknown", "perhaps", raising=False)
    assert "its on_unknown is 'perhaps'" in str(load(tmp_path, text).errors[0])
