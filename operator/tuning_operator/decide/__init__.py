"""The decisions: from a snapshot to a plan, and from both to a status. Pure: no await, no clock, no client.

The order is the reading order: is the study over, what happens to its trials, what happens to its workers.
"""

from tuning_operator.decide.budget import plan_trials
from tuning_operator.decide.completion import outcome
from tuning_operator.decide.workers import plan_workers
from tuning_operator.model import Plan, Snapshot, Verdict


def plan(snapshot: Snapshot) -> Plan:
    """What is to be done about a study."""
    verdict = outcome(snapshot)
    trials = plan_trials(snapshot, verdict)
    return Plan(
        outcome=verdict,
        clock=snapshot.record.clock.ticking(now=snapshot.now, runs=verdict.verdict is Verdict.RUN),
        trials=trials,
        workers=plan_workers(snapshot, verdict, trials),
    )
