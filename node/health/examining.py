"""Every cause that is known, judged by what was seen. Pure."""

from node.health import machine_causes, peer_causes, reach_causes
from node.health.facts import Facts
from node.health.finding import Cause, Finding, State

CAUSES: tuple[Cause, ...] = (
    *machine_causes.CAUSES,
    *reach_causes.CAUSES,
    *peer_causes.CAUSES,
)


def examine(facts: Facts) -> tuple[Finding, ...]:
    """One finding for each cause, in the order in which they are worth a look."""
    return tuple(_finding(cause, facts) for cause in CAUSES)


def is_sound(findings: tuple[Finding, ...]) -> bool:
    """Whether nothing is bad."""
    return not any(it.state is State.BAD for it in findings)


def _finding(cause: Cause, facts: Facts) -> Finding:
    seen = cause.judge(facts)
    return Finding(cause.name, cause.what, seen.state, seen.words, seen.advice)
