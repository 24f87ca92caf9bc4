"""Steps that ask agents: whether the settings have them, and whether the run lasts as long as the
task may take. As with servers, the file may be written for another host."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from opsmesh.handlers.lint.finding import Finding, Severity
from opsmesh.handlers.lint.places import Places
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.schemas import durations
from opsmesh.schemas.nearest import nearest


def lint(
    profile: Profile, places: Places, agents: Collection[str] | None, *, strict: bool = False
) -> Iterator[Finding]:
    """`agents` are those of the settings; None: nothing is said of them."""
    severity: Severity = "error" if strict else "warning"
    for number, step in enumerate(profile.steps):
        if step.action.key != "a2a":
            continue
        spec = step.action.describe()
        name, task_s = spec["agent"], float(spec["timeout"])
        if agents is not None and name not in agents:
            near = nearest(name, agents)
            add = "add it to a2a_agents in config.yaml"
            yield places.finding(
                severity,
                ("actions", number, "a2a", "agent"),
                f"agent {name!r} is not in a2a_agents",
                hint=f"did you mean {near!r}?" if near else add,
            )
        run_s = min(profile.timeout, step.timeout or profile.timeout)
        if run_s < task_s:
            whose = "step" if run_s == step.timeout else "profile"
            yield places.finding(
                "warning",
                ("actions", number, "a2a"),
                f"the task may take {durations.text(task_s)}, and the {whose} is stopped after "
                f"{durations.text(run_s)}: it is canceled then",
                hint=f"timeout of the {whose}: {durations.text(task_s)} or more",
            )
