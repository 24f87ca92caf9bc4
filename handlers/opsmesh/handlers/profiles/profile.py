"""Profiles: what fires on which events, and what it does, as their files say.

Every error of every file is found, each with its file, line and column. A profile with an error is
not in the set; who loads a set with errors keeps the one of before in force.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Self

import msgspec
from pydantic import ValidationError
from pydantic.json_schema import models_json_schema

from opsmesh.handlers.actions import registry
from opsmesh.handlers.actions.contract import ON_UNKNOWN, Action, OnUnknown
from opsmesh.handlers.actions.nothing import Nothing
from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles import yamlfile
from opsmesh.handlers.profiles.reporter import Reporter
from opsmesh.handlers.profiles.spec import (
    ApproveSpec,
    ExposeSpec,
    FalsePositivesSpec,
    ProfileSpec,
    StepSpec,
)
from opsmesh.handlers.profiles.yamlfile import Document
from opsmesh.handlers.runs.concurrency import Concurrency
from opsmesh.router.retry import Retry
from opsmesh.router.rule import ProfileState, Rule
from opsmesh.schemas import durations
from opsmesh.schemas.nearest import did_you_mean

#: The file, and the folder of further ones, in the configuration folder.
FILE: Final = "profiles.yaml"
FOLDER: Final = "profiles.d"
#: The version of the files' form.
VERSION: Final = 1

#: A name is a token of a NATS subject and part of a consumer's name.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One action of a profile, and how its failures are taken."""

    id: str
    action: Action
    timeout: float | None = None
    on_unknown: OnUnknown = "retry"
    continue_on_error: bool = False
    approve: ApproveSpec | None = None
    when: str | None = None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A valid profile. Two are equal when they do the same in the same state.

    `hash` stands for what it does: not for its state, and not for the form of its text.
    """

    name: str
    hash: str
    state: ProfileState
    owner: str = field(compare=False)
    description: str = field(compare=False)
    run_on: str = field(compare=False)
    concurrency: Concurrency = field(compare=False)
    retry: Retry = field(compare=False)
    timeout: float = field(compare=False)
    vars: Mapping[str, Any] = field(compare=False)
    false_positives: FalsePositivesSpec | None = field(compare=False)
    #: What agents beyond the mesh may know of it; None: they may not ask for it.
    expose: ExposeSpec | None = field(compare=False)
    #: The part that decides, in the state of this profile.
    rule: Rule = field(compare=False)
    steps: tuple[Step, ...] = field(compare=False)
    #: Where it is defined: file and line.
    file: str = field(compare=False)
    line: int = field(compare=False)
    content: Mapping[str, Any] = field(compare=False, repr=False)
    #: What its file says of it, as it was read.
    source: Mapping[str, Any] = field(compare=False, repr=False)

    @property
    def on(self) -> tuple[str, ...]:
        """The topics that it listens to."""
        return self.rule.on

    def with_state(self, state: ProfileState) -> Self:
        """The same profile in another state; its hash stays."""
        return replace(self, state=state, rule=msgspec.structs.replace(self.rule, state=state))

    def describe(self) -> dict[str, Any]:
        """Its validated content, every default filled in, as JSON values."""
        return dict(self.content)


@dataclass(frozen=True)
class ProfileSet:
    """The profiles of a configuration folder, what is wrong with it, and with plug-ins."""

    profiles: dict[str, Profile] = field(default_factory=dict)
    errors: list[ConfigError] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load_profiles(config_dir: Path) -> ProfileSet:
    """The profiles of `profiles.yaml` and `profiles.d/*.yaml`; files that are not there are empty.

    Never raises for what a person wrote: that is in `errors`, in the order of files and lines.
    """
    found = registry.discover()
    result = ProfileSet(problems=list(found.problems.values()))
    for path, name in profile_files(config_dir):
        try:
            document = yamlfile.load(path, name=name)
        except ConfigError as error:
            result.errors.append(error)
            continue
        reporter = Reporter(document)
        _load_document(document, result.profiles, found, reporter)
        result.errors.extend(sorted(reporter.errors, key=lambda error: (error.line, error.column)))
    return result


def load_file(path: Path) -> ProfileSet:
    """The profiles of one file, wherever it lies."""
    result = ProfileSet()
    try:
        document = yamlfile.load(path)
    except ConfigError as error:
        result.errors.append(error)
        return result
    return parse(document)


def parse(document: Document) -> ProfileSet:
    """The profiles of one document."""
    found = registry.discover()
    result = ProfileSet(problems=list(found.problems.values()))
    reporter = Reporter(document)
    _load_document(document, result.profiles, found, reporter)
    result.errors.extend(sorted(reporter.errors, key=lambda error: (error.line, error.column)))
    return result


def from_source(name: str, source: Mapping[str, Any]) -> Profile:
    """A profile from what a file once said of it (`Profile.source`); ConfigError when this version
    of opsmesh does not take it."""
    data = {"profiles": {name: dict(source)}}
    found = parse(Document(file=name, data=data, positions={}, keys={}))
    if found.errors:
        raise found.errors[0]
    return found.profiles[name]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a profile file, for an editor's completion."""
    actions = registry.discover().actions
    specs = {
        key: spec for key, action in actions.items() if (spec := getattr(action, "spec", None))
    }
    models = [(model, "validation") for model in (ProfileSpec, StepSpec, *specs.values())]
    refs, schema = models_json_schema(models, ref_template="#/$defs/{model}")  # type: ignore[arg-type]
    definitions = schema["$defs"]
    step = definitions["StepSpec"]
    for key in actions:
        # An action's short forms (a list, one word) are its own; only a mapping is completed.
        spec = refs.get((specs[key], "validation")) if key in specs else None
        step["properties"][key] = {} if spec is None else {"anyOf": [spec, {}]}
    alone = {"required": [Nothing.key], "not": {"anyOf": [{"required": [k]} for k in actions]}}
    step["oneOf"] = [*({"required": [key]} for key in actions), alone]
    definitions["ProfileSpec"]["properties"]["actions"]["items"] = {"$ref": "#/$defs/StepSpec"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "opsmesh profiles",
        "type": "object",
        "properties": {
            "version": {"const": VERSION},
            "profiles": {
                "type": "object",
                "propertyNames": {"pattern": f"^{_NAME.pattern}$"},
                "additionalProperties": {"$ref": "#/$defs/ProfileSpec"},
            },
        },
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        "$defs": definitions,
    }


def profile_files(config_dir: Path) -> list[tuple[Path, str]]:
    """The files that profiles are read from, in their order, and what people call each."""
    folder = config_dir / FOLDER
    parts = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    files = [(config_dir / FILE, FILE), *((path, f"{FOLDER}/{path.name}") for path in parts)]
    return [(path, name) for path, name in files if path.exists() and not path.name.startswith(".")]


def _load_document(
    document: Document, known: dict[str, Profile], found: registry.Found, reporter: Reporter
) -> None:
    data = document.data
    if data is None:
        return
    if not isinstance(data, dict):
        reporter.add((), "a profile file is a mapping with the key 'profiles'")
        return
    for key in data:
        if key not in ("version", "profiles") and not str(key).startswith("x-"):
            near = did_you_mean(str(key), ("version", "profiles"))
            reporter.add((key,), f"unknown key {key!r}{near}", key=True)
    if data.get("version", VERSION) != VERSION:
        reporter.add(("version",), f"version {data['version']!r} is not {VERSION}, the only one")
    profiles = data.get("profiles") or {}
    if not isinstance(profiles, dict):
        reporter.add(("profiles",), "'profiles' is a mapping of names to profiles")
        return
    for name, value in profiles.items():
        profile = _load_profile(name, value, document, found, reporter)
        if profile is None:
            continue
        if (other := known.get(profile.name)) is not None:
            where = f"{other.file}:{other.line}"
            reporter.add(
                ("profiles", name), f"profile {name!r} is already defined at {where}", key=True
            )
            continue
        known[profile.name] = profile


def _load_profile(
    name: Any, value: Any, document: Document, found: registry.Found, reporter: Reporter
) -> Profile | None:
    base: yamlfile.Where = ("profiles", name)
    reporter = reporter.within(f" in profile {str(name)!r}")
    before = len(reporter.errors)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        reporter.add(
            base, f"name {name!r} is not 1 to 64 of [a-z0-9_-] after a letter or digit", key=True
        )
    if not isinstance(value, dict):
        reporter.add(base, "a profile is a mapping with the keys 'on' and 'actions'")
        return None
    spec = None
    try:
        spec = ProfileSpec.model_validate(value)
    except ValidationError as error:
        reporter.add_validation(base, error, model=ProfileSpec)
    steps = _load_steps(base, value.get("actions"), found, reporter)
    if spec is not None and spec.tools is not None and len(reporter.errors) == before:
        _check_tools(base, spec.tools, steps, reporter)
    if spec is not None:
        spec = _with_time(spec, steps, base, reporter)
    if spec is None or len(reporter.errors) > before:
        return None
    return _profile(str(name), spec, steps, document)


def _check_tools(
    base: yamlfile.Where, tools: list[str], steps: list[Step], reporter: Reporter
) -> None:
    """The profile's own list of what it may call, against what its steps do call."""
    for index, step in enumerate(steps):
        called: str | None = getattr(step.action, "calls", None)
        if called is None or any(fnmatchcase(called, pattern) for pattern in tools):
            continue
        where = (*base, "actions", index, step.action.key, "tool")
        hint = did_you_mean(called, tools) or f"; add it to 'tools': {called}"
        reporter.add(where, f"{called} is not among the 'tools' of the profile{hint}")


def _with_time(
    spec: ProfileSpec, steps: Sequence[Step], base: yamlfile.Where, reporter: Reporter
) -> ProfileSpec:
    """The profile with time for what its steps wait (`takes_s` of an action): its own `timeout` has
    to be longer, and the default grows by it."""
    waits = sum(_takes_s(step.action) for step in steps)
    if not waits:
        return spec
    if "timeout" not in spec.model_fields_set:
        return spec.model_copy(update={"timeout": spec.timeout + waits})
    if spec.timeout <= waits:
        limit, waited = durations.text(spec.timeout), durations.text(waits)
        why = f"a run of {limit} has no time for the {waited} that its steps may wait"
        reporter.add((*base, "timeout"), why)
    return spec


def _takes_s(action: Action) -> float:
    return float(getattr(action, "takes_s", 0.0))


def _load_steps(
    base: yamlfile.Where, value: Any, found: registry.Found, reporter: Reporter
) -> list[Step]:
    if not isinstance(value, list):
        return []  # the profile's own validation says so
    steps: list[Step] = []
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            continue
        step = _load_step((*base, "actions", index), item, found, reporter)
        if step is None:
            continue
        if any(step.id == other.id for other in steps):
            reporter.add((*base, "actions", index, "id"), f"two steps have the id {step.id!r}")
        steps.append(step)
    return steps


def _load_step(
    where: yamlfile.Where, item: dict[Any, Any], found: registry.Found, reporter: Reporter
) -> Step | None:
    index = where[-1]
    keys = [key for key in item if key in found.actions]
    common = {key: value for key, value in item.items() if key in StepSpec.model_fields}
    known = [*found.actions, *StepSpec.model_fields]
    unknown = [key for key in item if key not in known]
    for key in unknown:
        reporter.add((*where, key), _unknown_step_key(str(key), known, found), key=True)
    kinds: Mapping[str, type[Action]] = found.actions
    if not keys and Nothing.key in item:
        keys, kinds = [Nothing.key], {Nothing.key: Nothing}
    if len(keys) != 1:
        if len(keys) > 1:
            reporter.add(where, f"a step has one action; this has {' and '.join(map(repr, keys))}")
        elif not unknown:
            kinds_there = ", ".join(sorted([*found.actions, Nothing.key]))
            reporter.add(where, f"a step needs an action: one of {kinds_there}")
        return None
    key = keys[0]
    before = len(reporter.errors)
    spec, action = StepSpec(), None
    try:
        spec = StepSpec.model_validate(common)
    except ValidationError as error:
        reporter.add_validation(where, error, model=StepSpec)
    kind = kinds[key]
    try:
        action = kind.parse(item[key])
        json.dumps(action.describe())  # what cannot be hashed is this plug-in's error, not ours
    except ValidationError as error:
        reporter.add_validation((*where, key), error, model=getattr(kind, "spec", None))
    except Exception as error:  # noqa: BLE001, RUF100 (a stranger's parse may raise anything)
        reporter.add((*where, key), f"{key}: {error}")
    by_kind: OnUnknown = getattr(kind, "on_unknown", "retry")
    on_unknown = spec.on_unknown or by_kind
    if on_unknown not in ON_UNKNOWN:  # a plug-in's mistake
        reporter.add((*where, key), f"{key}: its on_unknown is {on_unknown!r}, which is no choice")
    if on_unknown == "resume" != by_kind:
        reporter.add((*where, "on_unknown"), f"{key} cannot resume: it keeps nothing to go on from")
    if action is not None and spec.timeout is not None and spec.timeout < _takes_s(action):
        limit, waited = durations.text(spec.timeout), durations.text(_takes_s(action))
        reporter.add((*where, "timeout"), f"{limit} is no time for the {waited} that it may wait")
    if action is None or len(reporter.errors) > before:
        return None
    return Step(
        id=spec.id or f"{key}_{index}",
        action=action,
        timeout=spec.timeout,
        on_unknown=on_unknown,
        continue_on_error=spec.continue_on_error,
        approve=spec.approve,
        when=spec.when,
    )


def _unknown_step_key(key: str, known: list[str], found: registry.Found) -> str:
    if key in found.problems:
        return f"the plug-in for {key!r} is broken: {found.problems[key]}"
    return f"unknown key {key!r} in step{did_you_mean(key, known)}"


def _describe(step: Step) -> dict[str, Any]:
    asks: dict[str, Any] = {} if step.when is None else {"when": step.when}
    if step.approve is not None:
        asks["approve"] = step.approve.model_dump(mode="json")
    return {
        "id": step.id,
        "timeout": step.timeout,
        "on_unknown": step.on_unknown,
        "continue_on_error": step.continue_on_error,
        step.action.key: step.action.describe(),
        **asks,
    }


def _profile(name: str, spec: ProfileSpec, steps: list[Step], document: Document) -> Profile:
    content = spec.model_dump(mode="json", exclude={"actions"})
    content["actions"] = [_describe(step) for step in steps]
    identity = {
        "name": name,
        **{key: value for key, value in content.items() if key not in ("state", "expose")},
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()[:16]
    return Profile(
        name=name,
        hash=digest,
        state=spec.state,
        owner=spec.owner,
        description=spec.description,
        run_on=spec.run_on,
        concurrency=spec.concurrency.policy(),
        retry=spec.retry.policy(),
        timeout=spec.timeout,
        vars=spec.vars,
        false_positives=spec.false_positives,
        expose=spec.expose,
        rule=spec.rule(name, digest),
        steps=tuple(steps),
        file=document.file,
        line=document.key_position(("profiles", name))[0],
        content=content,
        source=document.data["profiles"][name],
    )
