"""Profiles: what fires on which events, and what it does, as their files say.

Every error of every file is found, each with its file, line and column. A profile with an error is
not in the set; who loads a set with errors keeps the one of before in force.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import msgspec
from pydantic import ValidationError
from pydantic.json_schema import models_json_schema

from opsmesh.handlers.actions import registry
from opsmesh.handlers.actions.nothing import Nothing
from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles import yamlfile
from opsmesh.handlers.profiles.reporter import Reporter
from opsmesh.handlers.profiles.spec import (
    ExposeSpec,
    FalsePositivesSpec,
    ProfileSpec,
    StepSpec,
)
from opsmesh.handlers.profiles.steps import (
    Step,
    check_tools,
    describe_step,
    load_steps,
    with_time,
)
from opsmesh.handlers.profiles.yamlfile import Document
from opsmesh.handlers.runs.concurrency import Concurrency
from opsmesh.handlers.slo.objectives import Policy
from opsmesh.router.retry import Retry
from opsmesh.router.rule import ProfileState, Rule
from opsmesh.schemas.nearest import did_you_mean

#: The file, and the folder of further ones, in the configuration folder.
FILE: Final = "profiles.yaml"
FOLDER: Final = "profiles.d"
#: The version of the files' form.
VERSION: Final = 1

#: A name is a token of a NATS subject and part of a consumer's name.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


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
    #: What its owner wants of it; None: nothing.
    slo: Policy | None = field(compare=False)
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
    steps = load_steps(base, value.get("actions"), found, reporter)
    if spec is not None and spec.tools is not None and len(reporter.errors) == before:
        check_tools(base, spec.tools, steps, reporter)
    if spec is not None:
        spec = with_time(spec, steps, base, reporter)
    if spec is None or len(reporter.errors) > before:
        return None
    return _profile(str(name), spec, steps, document)


def _profile(name: str, spec: ProfileSpec, steps: list[Step], document: Document) -> Profile:
    content = spec.model_dump(mode="json", exclude={"actions"})
    content["actions"] = [describe_step(step) for step in steps]
    identity = {
        "name": name,
        **{key: value for key, value in content.items() if key not in ("state", "expose", "slo")},
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
        slo=spec.slo.policy() if spec.slo else None,
        expose=spec.expose,
        rule=spec.rule(name, digest),
        steps=tuple(steps),
        file=document.file,
        line=document.key_position(("profiles", name))[0],
        content=content,
        source=document.data["profiles"][name],
    )
