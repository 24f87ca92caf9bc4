"""What handlers and the sink count. Names and labels are a promise to dashboards: docs/metrics.md
has the rules."""

from __future__ import annotations

from typing import Final

from opsmesh.router.metrics.book import Book, Counter, Gauge, Histogram

DECISIONS: Final = Counter(
    "opsmesh_decisions_total",
    "Decisions of profiles, by outcome. Events that a condition without memory lets pass are not "
    "among them: opsmesh_profile_read_events_total has those, too.",
    *("profile", "outcome"),
)
READ: Final = Counter(
    "opsmesh_profile_read_events_total", "Events that a profile has read.", "profile"
)
DECIDING: Final = Histogram("opsmesh_decision_duration_seconds", "Time that a decision took.")
OWNED: Final = Gauge(
    "opsmesh_profile_owned", "1 for a profile that this process decides, 0 if no more.", "profile"
)
OWNER_CHANGES: Final = Counter(
    "opsmesh_owner_changes_total", "Times that this process became a profile's owner.", "profile"
)
UNDER_WAY: Final = Gauge(
    "opsmesh_runs_under_way", "Runs that have begun, or wait, and have not ended.", "profile"
)
RUNS: Final = Counter(
    "opsmesh_runs_total", "Runs that came to an end, by how.", *("profile", "state")
)
RUN_SECONDS: Final = Histogram(
    "opsmesh_run_duration_seconds", "Time that an attempt of a run took.", "profile"
)
RETRIES: Final = Counter(
    "opsmesh_run_retries_total", "Attempts that failed, and are made again.", "profile"
)
TO_ACTION: Final = Histogram(
    "opsmesh_trigger_to_action_seconds",
    "From an event's storing, or the end of its window, to the first step of its run.",
    "profile",
)
STEP_SECONDS: Final = Histogram(
    "opsmesh_step_duration_seconds", "Time that a step took, by its action.", "action"
)
STEPS: Final = Counter(
    "opsmesh_steps_total", "Steps that came to an end, by action and how.", *("action", "outcome")
)
DEAD_LETTERS: Final = Counter(
    "opsmesh_dead_letters_total", "Events that were given up, and kept as letters.", "profile"
)

WAITING: Final = Gauge("opsmesh_runs_waiting", "Runs that wait for a person's answer.", "profile")
SLO_LEFT: Final = Gauge(
    "opsmesh_slo_budget_left_ratio",
    "What is left of an objective's error budget: 1 all of it, 0 none, below 0 it is overdrawn.",
    *("profile", "objective"),
)
SLO_BURN: Final = Gauge(
    "opsmesh_slo_burn_rate",
    "How many times faster than just enough the error budget was spent in the last hour.",
    *("profile", "objective"),
)

HANDLERS: Final = Book(
    *(DECISIONS, READ, DECIDING, OWNED, OWNER_CHANGES, UNDER_WAY, RUNS, RUN_SECONDS),
    *(RETRIES, TO_ACTION, STEP_SECONDS, STEPS, DEAD_LETTERS, WAITING, SLO_LEFT, SLO_BURN),
)

ARCHIVED: Final = Counter(
    "opsmesh_evidence_events_total", "Events that were taken into the archive and are on disk."
)
COMMIT: Final = Histogram(
    "opsmesh_evidence_commit_duration_seconds", "Time that a commit to the disk took."
)
LAST_SEQUENCE: Final = Gauge(
    "opsmesh_evidence_last_sequence", "The sequence up to which everything is archived."
)
SEALED: Final = Counter("opsmesh_evidence_seals_total", "Files of the archive that were sealed.")
FAILED_COMMITS: Final = Counter(
    "opsmesh_evidence_failed_commits_total", "Commits that the disk refused; each is tried again."
)

SINK: Final = Book(ARCHIVED, COMMIT, LAST_SEQUENCE, SEALED, FAILED_COMMITS)


def begin(profile: str) -> None:
    """Have what a profile may come to there, as 0: what appears with its first one is no increase
    to Prometheus."""
    for counter in (READ, RETRIES, DEAD_LETTERS):
        counter.add(profile, by=0)
    for state in ("succeeded", "deadlettered"):
        RUNS.add(profile, state, by=0)
