"""automation.*: what the mesh did about an event: runs, approvals, feedback, dead letters."""

from __future__ import annotations

from typing import Annotated, Any, Final

from opsmesh.schemas.topics import Payload, Topic, doc

_Profile = Annotated[str, doc("name of the profile")]
_Hash = Annotated[str | None, doc("hash of the profile's text")]
_Trigger = Annotated[str | None, doc("topic of the event that fired the profile")]
_Bundles = Annotated[
    list[str] | None, doc("ids of its evidence bundles: SHA-256 of their manifests")
]
_TriggerId = Annotated[str | None, doc("id of the event that fired the profile")]


_By = Annotated[str | None, doc("what began it, where no decision did: manual, redrive, replay, …")]
_Waited = Annotated[
    float | None,
    doc("from the event's storing, or the end of its window, to the first step, milliseconds"),
]


class Step(Payload, frozen=True, kw_only=True):
    """One step of a run."""

    id: Annotated[str, doc("the step's id in the profile")]
    action: Annotated[str, doc("kind of the action, like command")]
    outcome: Annotated[str, doc("done, failed, skipped, unknown or asked")]
    duration_ms: Annotated[float | None, doc("time of the step, milliseconds")] = None
    exit_code: Annotated[int | None, doc("exit status of a command")] = None
    error: Annotated[str | None, doc("what went wrong")] = None


class AutomationRunSucceeded(Payload, frozen=True, kw_only=True):
    """All steps of a run are done."""

    profile: _Profile
    profile_hash: _Hash = None
    trigger_topic: _Trigger = None
    trigger_id: _TriggerId = None
    trigger: _By = None
    waited_ms: _Waited = None
    steps: Annotated[list[Step] | None, doc("the steps in their order")] = None
    bundles: _Bundles = None
    attempts: Annotated[int | None, doc("attempts that it took")] = None
    duration_ms: Annotated[float | None, doc("time of this attempt, milliseconds")] = None


class AutomationRunFailed(Payload, frozen=True, kw_only=True):
    """An attempt of a run failed; with next_attempt_in_s there will be another."""

    profile: _Profile
    error: Annotated[str, doc("what went wrong")]
    profile_hash: _Hash = None
    trigger_topic: _Trigger = None
    trigger_id: _TriggerId = None
    trigger: _By = None
    waited_ms: _Waited = None
    steps: Annotated[list[Step] | None, doc("the steps so far")] = None
    bundles: _Bundles = None
    attempts: Annotated[int | None, doc("attempts so far, this one included")] = None
    max_attempts: Annotated[int | None, doc("attempts that the profile allows")] = None
    next_attempt_in_s: Annotated[float | None, doc("seconds to the next attempt; absent: none")] = (
        None
    )
    duration_ms: Annotated[float | None, doc("time of this attempt, milliseconds")] = None


class AutomationRunDeadlettered(Payload, frozen=True, kw_only=True):
    """A run failed for good; its event lies in the DLQ."""

    profile: _Profile
    error: Annotated[str, doc("what went wrong in the last attempt")]
    profile_hash: _Hash = None
    trigger_topic: _Trigger = None
    trigger_id: _TriggerId = None
    trigger: _By = None
    waited_ms: _Waited = None
    steps: Annotated[list[Step] | None, doc("the steps of the last attempt")] = None
    bundles: _Bundles = None
    attempts: Annotated[int | None, doc("attempts that were made")] = None
    reason: Annotated[str | None, doc("why there: exhausted, rejected, undecodable, …")] = None
    dlq_seq: Annotated[int | None, doc("sequence in the stream DLQ, for `opsmesh dlq show`")] = None


class AutomationRunSetAside(Payload, frozen=True, kw_only=True):
    """A run had no room beside another one of its profile."""

    profile: _Profile
    reason: Annotated[str, doc("which run it had to make room for")]
    profile_hash: _Hash = None
    trigger_topic: _Trigger = None
    trigger_id: _TriggerId = None
    trigger: _By = None
    steps: Annotated[list[Step] | None, doc("the steps so far")] = None
    bundles: _Bundles = None


class AutomationStepUnknown(Payload, frozen=True, kw_only=True):
    """Nobody knows how a step went: its handler ended, or lost the run, while it was under way."""

    profile: _Profile
    step: Annotated[str, doc("id of the step")]
    on_unknown: Annotated[str, doc("how the run goes on: retry, skip, fail or ask")]
    action: Annotated[str | None, doc("kind of the action, like command")] = None
    profile_hash: _Hash = None
    trigger_topic: _Trigger = None
    trigger_id: _TriggerId = None
    started_at: Annotated[str | None, doc("when it began, RFC 3339 UTC")] = None
    held_by: Annotated[str | None, doc("host of the handler that had begun it")] = None
    pid: Annotated[int | None, doc("pid of that handler")] = None


class AutomationStepAnswered(Payload, frozen=True, kw_only=True):
    """A person said how a run goes on after a step whose outcome nobody knows."""

    profile: _Profile
    step: Annotated[str, doc("id of the step")]
    choice: Annotated[str, doc("how the run goes on: retry, skip or fail")]
    profile_hash: _Hash = None
    trigger_topic: _Trigger = None
    trigger_id: _TriggerId = None
    by: Annotated[str | None, doc("who answered")] = None
    by_host: Annotated[str | None, doc("where they answered")] = None
    reason: Annotated[str | None, doc("why, in their words")] = None
    waited_s: Annotated[float | None, doc("time from question to answer, seconds")] = None


class AutomationApprovalRequested(Payload, frozen=True, kw_only=True):
    """A step waits for a person."""

    profile: _Profile
    step: Annotated[str, doc("id of the step that waits")]
    prompt: Annotated[str, doc("the question")]
    approval_id: Annotated[str | None, doc("what an answer must name")] = None
    profile_hash: _Hash = None
    trigger_topic: _Trigger = None
    trigger_id: _TriggerId = None
    expires_at: Annotated[str | None, doc("end of the wait, RFC 3339 UTC")] = None
    otherwise: Annotated[str | None, doc("what happens without an answer: skip, run or fail")] = (
        None
    )
    answer_schema: Annotated[dict[str, Any] | None, doc("JSON Schema of the answer's value")] = None
    may_answer: Annotated[list[str] | None, doc("names of those who may; absent: everybody")] = None


class AutomationApprovalDecided(Payload, frozen=True, kw_only=True):
    """A person answered, or nobody did in time."""

    profile: _Profile
    step: Annotated[str, doc("id of the step that waited")]
    approval_id: Annotated[str | None, doc("the question that was answered")] = None
    profile_hash: _Hash = None
    trigger_topic: _Trigger = None
    trigger_id: _TriggerId = None
    by: Annotated[str | None, doc("who answered")] = None
    by_host: Annotated[str | None, doc("where they answered")] = None
    via: Annotated[str | None, doc("on which surface: cli, notification, quickshell, mcp, …")] = (
        None
    )
    comment: Annotated[str | None, doc("what they said")] = None
    answer: Annotated[Any, doc("the value that was asked for")] = None
    otherwise: Annotated[str | None, doc("what follows, where nobody answered")] = None
    waited_s: Annotated[float | None, doc("time from question to answer, seconds")] = None


class AutomationApprovalRefused(Payload, frozen=True, kw_only=True):
    """An answer was not taken: it came too late, twice, or from somebody who may not give it."""

    profile: _Profile
    step: Annotated[str, doc("id of the step that waits, or has waited")]
    approval_id: Annotated[str, doc("the question that was meant")]
    verdict: Annotated[str, doc("the answer that was not taken: granted or denied")]
    reason: Annotated[str, doc("why it was not")]
    by: Annotated[str | None, doc("who answered, as far as that is known")] = None
    by_host: Annotated[str | None, doc("where they answered")] = None
    via: Annotated[str | None, doc("on which surface: cli, notification, quickshell, mcp, …")] = (
        None
    )


class AutomationFeedbackRecorded(Payload, frozen=True, kw_only=True):
    """A person judged a run."""

    profile: _Profile
    verdict: Annotated[str, doc("the judgement: useful or false_positive; a run's newest counts")]
    run: Annotated[str | None, doc("id of the run")] = None
    trigger_topic: _Trigger = None
    trigger_id: _TriggerId = None
    by: Annotated[str | None, doc("who judged")] = None
    comment: Annotated[str | None, doc("what they said")] = None


class AutomationProfileOverBudget(Payload, frozen=True, kw_only=True):
    """More of a profile's last runs were false positives than it may have."""

    profile: _Profile
    rate: Annotated[float, doc("share of false positives among those runs, 0 to 1")]
    budget: Annotated[float, doc("share that the profile allows, 0 to 1")]
    runs: Annotated[int, doc("the last runs that were looked at; unjudged ones count as fine")]
    false_positives: Annotated[int, doc("false positives among them")]
    then: Annotated[str, doc("what the profile asks for: tell or shadow")]
    profile_hash: _Hash = None


class AutomationDeadletterHandled(Payload, frozen=True, kw_only=True):
    """A dead letter was sent again, or given up."""

    profile: _Profile
    dlq_seq: Annotated[int, doc("its sequence in the stream DLQ")]
    trigger_topic: _Trigger = None
    trigger_id: _TriggerId = None
    by: Annotated[str | None, doc("who decided")] = None
    reason: Annotated[str | None, doc("why, in their words")] = None


_STEPS: Final = [
    {"id": "evidence", "action": "collect", "outcome": "done", "duration_ms": 41.0},
    {"id": "restart", "action": "command", "outcome": "failed", "exit_code": 1},
]
_RUN: Final = {
    "profile": "triage-failed-service",
    "profile_hash": "b6a4f3d2c1e0",
    "trigger_topic": "service.start.failed",
}
_WAIT: Final = {"profile": "triage-failed-service", "step": "restart", "approval_id": "a-7f3k"}

TOPICS: Final = (
    Topic(
        "automation.run.succeeded",
        payload=AutomationRunSucceeded,
        owner="handlers",
        severity="info",
        description="All steps of a profile's run are done.",
        example={**_RUN, "steps": _STEPS[:1], "attempts": 1, "duration_ms": 52.0},
    ),
    Topic(
        "automation.run.failed",
        payload=AutomationRunFailed,
        owner="handlers",
        severity="warn",
        description="An attempt of a profile's run failed.",
        example={
            **_RUN,
            "error": "restart: exit status 1",
            "steps": _STEPS,
            "attempts": 1,
            "max_attempts": 4,
            "next_attempt_in_s": 2.1,
        },
    ),
    Topic(
        "automation.run.deadlettered",
        payload=AutomationRunDeadlettered,
        owner="handlers",
        description="A profile's run failed for good; its event lies in the DLQ.",
        example={
            **_RUN,
            "error": "restart: exit status 1",
            "steps": _STEPS,
            "attempts": 4,
            "reason": "exhausted",
            "dlq_seq": 7,
        },
    ),
    Topic(
        "automation.run.skipped",
        payload=AutomationRunSetAside,
        owner="handlers",
        severity="info",
        description="A run was left out: one was under way (concurrency mode single).",
        example={**_RUN, "reason": "run 01a205fc-ddc4-7221-a64d-3394619e70d8 was under way"},
    ),
    Topic(
        "automation.run.cancelled",
        payload=AutomationRunSetAside,
        owner="handlers",
        severity="info",
        description="A run was stopped for a newer one (concurrency mode restart).",
        example={
            **_RUN,
            "reason": "run 01a205fc-ddc4-7221-a64d-3394619e70d8 took its place",
            "steps": _STEPS[:1],
        },
    ),
    Topic(
        "automation.step.unknown",
        payload=AutomationStepUnknown,
        owner="handlers",
        severity="warn",
        description="Nobody knows how a step of a run went: its handler ended meanwhile.",
        example={
            **_RUN,
            "step": "restart",
            "action": "command",
            "on_unknown": "ask",
            "started_at": "2026-11-23T09:12:00.000000Z",
            "held_by": "laptop",
            "pid": 4711,
        },
    ),
    Topic(
        "automation.step.answered",
        payload=AutomationStepAnswered,
        owner="handlers",
        severity="info",
        description="A person said how a run goes on after such a step.",
        example={
            **_RUN,
            "step": "restart",
            "choice": "skip",
            "by": "dev",
            "by_host": "laptop",
            "reason": "the unit runs again",
            "waited_s": 340.2,
        },
    ),
    Topic(
        "automation.approval.requested",
        payload=AutomationApprovalRequested,
        owner="handlers",
        severity="info",
        description="A step waits for a person's approval.",
        example={
            **_WAIT,
            "prompt": "Restart backup.service?",
            "expires_at": "2026-11-23T09:22:00.000000Z",
            "otherwise": "skip",
        },
    ),
    Topic(
        "automation.approval.granted",
        payload=AutomationApprovalDecided,
        owner="handlers",
        severity="info",
        description="A person approved a step.",
        example={**_WAIT, "by": "dev", "waited_s": 12.4},
    ),
    Topic(
        "automation.approval.denied",
        payload=AutomationApprovalDecided,
        owner="handlers",
        severity="warn",
        description="A person refused a step.",
        example={**_WAIT, "by": "dev", "comment": "not during the backup", "waited_s": 8.0},
    ),
    Topic(
        "automation.approval.expired",
        payload=AutomationApprovalDecided,
        owner="handlers",
        severity="warn",
        description="Nobody answered in time.",
        example={**_WAIT, "waited_s": 600.0},
    ),
    Topic(
        "automation.approval.withdrawn",
        payload=AutomationApprovalDecided,
        owner="handlers",
        severity="warn",
        description="The run that asked ended before anybody answered.",
        example={**_WAIT, "comment": "cancelled by hand", "waited_s": 30.0},
    ),
    Topic(
        "automation.approval.refused",
        payload=AutomationApprovalRefused,
        owner="handlers",
        severity="warn",
        description="An answer to an approval was not taken.",
        example={
            **_WAIT,
            "verdict": "granted",
            "by": "guest",
            "via": "cli",
            "reason": "guest may not answer; dev may",
        },
    ),
    Topic(
        "automation.feedback.recorded",
        payload=AutomationFeedbackRecorded,
        owner="cli",
        severity="info",
        description="A person judged a run.",
        example={
            "profile": "triage-failed-service",
            "verdict": "false_positive",
            "run": "01a205fc-ddc4-7221-a64d-3394619e70d8",
            "trigger_topic": "service.start.failed",
            "by": "dev",
        },
    ),
    Topic(
        "automation.profile.over_budget",
        payload=AutomationProfileOverBudget,
        owner="handlers",
        severity="warn",
        description="A profile has more false positives than its budget allows.",
        example={
            "profile": "triage-failed-service",
            "profile_hash": "b6a4f3d2c1e0",
            "rate": 0.08,
            "budget": 0.05,
            "runs": 50,
            "false_positives": 4,
            "then": "shadow",
        },
    ),
    Topic(
        "automation.deadletter.redriven",
        payload=AutomationDeadletterHandled,
        owner="cli",
        severity="info",
        description="A dead letter was sent to its profile again.",
        example={
            "profile": "triage-failed-service",
            "dlq_seq": 7,
            "trigger_topic": "service.start.failed",
            "by": "dev",
        },
    ),
    Topic(
        "automation.deadletter.dropped",
        payload=AutomationDeadletterHandled,
        owner="cli",
        severity="warn",
        description="A dead letter was given up.",
        example={
            "profile": "triage-failed-service",
            "dlq_seq": 7,
            "by": "dev",
            "reason": "unit no longer exists",
        },
    ),
)
