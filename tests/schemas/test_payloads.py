"""The built-in topics: all of the mission's, each with a payload, an owner and an example."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from opsmesh.schemas.payloads import TOPICS
from opsmesh.schemas.redact import redact
from opsmesh.schemas.registry import Registry, Topic

MISSION = """
desktop.workspace.changed desktop.window.focus.changed desktop.monitor.layout.changed
desktop.idle.locked desktop.session.reloaded
shell.action.invoked shell.workflow.triggered shell.widget.error
service.start.failed service.restart.throttled service.unit.flapping
system.coredump.created system.oom.killed
config.change.detected config.apply.started config.apply.completed config.apply.failed
config.drift.detected
editor.task.failed editor.test.failed editor.extension.crashed editor.save
editor.lsp.diagnostic.error editor.lsp.diagnostic.cleared editor.format.failed
file.batch.completed file.path.access.denied file.op.delete file.op.move file.op.copy
term.session.started term.session.ended term.pane.command.failed term.layout.changed
notebook.cell.failed notebook.kernel.restarted notebook.run.completed
python.test.failed python.lint.failed python.run.timeout python.dep.vuln.detected
python.lint.passed python.dep.audit.incomplete
package.txn.completed package.vuln.detected package.check.completed package.breakage.suspected
service.triage.completed service.restart.decided system.incident.recorded python.test.diagnosed
config.failure.recorded config.rollback.decided
agent.session.started agent.session.ended agent.command.executed agent.turn.completed
agent.approval.requested agent.error
automation.run.succeeded automation.run.failed automation.run.deadlettered
automation.approval.requested automation.approval.granted automation.approval.denied
automation.approval.expired automation.approval.refused automation.approval.withdrawn
automation.feedback.recorded
mesh.gap.detected mesh.gap.filled
mesh.component.started mesh.component.stopped mesh.component.failed
shell.command.failed automation.deadletter.redriven automation.deadletter.dropped
automation.run.skipped automation.run.cancelled automation.profile.over_budget
automation.step.unknown automation.step.answered
automation.slo.breached automation.slo.burning automation.slo.recovered
mesh.config.rejected mesh.stream.regressed evidence.segment.sealed
agent.tool.called mcp.tool.completed mcp.tool.failed
a2a.message.received a2a.task.completed a2a.task.failed a2a.task.canceled a2a.task.rejected
a2a.task.accepted a2a.task.input_required a2a.task.auth_required
"""

each_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


def test_mission() -> None:
    """Every topic of the mission is there, once, and no other."""
    assert Counter(topic.name for topic in TOPICS) == Counter(MISSION.split())


@each_topic
def test_topic_is_described(topic: Topic) -> None:
    """A topic says who emits it and what it means, and so does each of its fields."""
    assert topic.owner
    assert topic.description.endswith(".")
    assert all(field.meaning for field in topic.fields())


@each_topic
def test_example_fits(topic: Topic) -> None:
    """An example fits its type, names only fields of the type, and holds no secret."""
    Registry([topic])
    assert topic.example.keys() <= {field.name for field in topic.fields()}
    assert redact(topic.example) == (topic.example, [])


@each_topic
def test_unknown_keys_are_tolerated(topic: Topic) -> None:
    """A payload with a key of tomorrow passes, and keeps it."""
    payload = {**topic.example, "of_tomorrow": [1]}
    assert Registry([topic]).check(topic.name, payload) is payload


@each_topic
def test_null_is_the_same_as_absent(topic: Topic) -> None:
    """Optional fields may be null where their type has no other default."""
    empty = {
        info.encode_name: None
        for info in msgspec.structs.fields(topic.payload)
        if not info.required and info.default is None
    }
    Registry([topic]).check(topic.name, {**topic.example, **empty})
