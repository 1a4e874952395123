"""Levels of checking by their words: what each asks for, and what cannot be asked for yet. Pure.

`signed`: nobody checks. `spot`: the lottery draws one answer in `limits.SPOT_ONE_IN`, after it was
signed, and verifiers check that one. `replayed`: verifiers check every answer. `exact`: they do
that of a model in whole numbers: nothing is tolerated, and of two that differ one is proved wrong.
`zk`: whoever answers proves in zero knowledge that a small ONNX model gave it, and verifiers check
the proof, with a key that they make of the model themselves; nothing is computed again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from node.engines.interface import EXACT_FORMATS
from node.gateway_config import check_verdicts, verdicts_of
from wire import limits
from wire.errors import InputError
from wire.kinds import Level
from wire.model import Manifest
from wire.operations import CALL, GENERATE, OPERATIONS
from wire.task import Stage

# Verdicts needed, and verifiers asked, where a level is named and their number is not.
NEEDED_DEFAULT, VERIFIERS_DEFAULT = 2, 3
CHECKED = (Level.SPOT_CHECKED, Level.REPLAYED)
POSSIBLE = (Level.SIGNED, *CHECKED, Level.EXACT, Level.ZERO_KNOWLEDGE)
PROVABLE_FORMAT = "onnx"
# The parameter of a call that asks for a proof with the output.
PROVE = "prove"
WORDS = ", ".join(it.word for it in POSSIBLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTerms:
    """A level, and how many verdicts an answer that is checked needs, of how many verifiers."""

    level: Level
    needed: int
    verifiers: int


def terms_of_numbers(needed: int, verifiers: int) -> CheckTerms:
    """What numbers alone ask for: every answer is checked, or with 0 of 0 none."""
    check_verdicts(needed, verifiers)
    level = Level.REPLAYED if verifiers else Level.SIGNED
    return CheckTerms(level=level, needed=needed, verifiers=verifiers)


def terms_of(word: str | None, verdicts: str | None, default: CheckTerms) -> CheckTerms:
    """What a level and a number of verdicts, as `2/3`, ask for together; `default` where neither
    is given. InputError for what contradicts itself, or cannot be done yet.
    """
    if word is None:
        return default if verdicts is None else terms_of_numbers(*verdicts_of(verdicts))
    level = level_of(word)
    if level is Level.SIGNED:
        if verdicts is not None and verdicts_of(verdicts) != (0, 0):
            raise InputError(
                f"the level signed has no verdicts, and {verdicts} were asked for",
                todo="ask for the level replayed, or leave one of the two out",
            )
        return CheckTerms(level=level, needed=0, verifiers=0)
    needed, verifiers = NEEDED_DEFAULT, VERIFIERS_DEFAULT
    if verdicts is not None:
        needed, verifiers = verdicts_of(verdicts)
    elif default.verifiers:
        needed, verifiers = default.needed, default.verifiers
    if not verifiers:
        raise InputError(
            f"the level {word} needs verdicts, and none were asked for",
            todo="ask for some, as 2/3, or for the level signed",
        )
    return CheckTerms(level=level, needed=needed, verifiers=verifiers)


def asked_at(level: Level, stage: Stage) -> Stage:
    """A stage as it is asked for at a level: what is checked tells of its states what shows more.

    A generation has a sketch of them, which sees other weights where no token shows them. At the
    level zk a call has a proof.
    """
    if level is Level.ZERO_KNOWLEDGE and stage.operation == CALL:
        return replace(stage, parameters={**stage.parameters, PROVE: 1})
    if level not in CHECKED or stage.operation != GENERATE:
        return stage
    return replace(stage, parameters={**stage.parameters, "sketch": 1})


def proves(stage: Stage) -> bool:
    """Whether a stage asks for a proof with its output."""
    return stage.operation == CALL and bool(stage.parameters.get(PROVE))


def level_of(word: str) -> Level:
    """A level by its word; InputError for one that there is not."""
    level = Level.of_word(word)
    if level is None:
        raise InputError(f"there is no level {word[:40]!r}", todo=f"use one of {WORDS}")
    return level


def is_provable(manifest: Manifest) -> bool:
    """Whether a circuit may be made of a model; how many weights it has, its file says."""
    size_bytes = sum(it.size_bytes for it in manifest.files)
    return (
        manifest.format == PROVABLE_FORMAT
        and CALL in manifest.operations
        and size_bytes <= limits.PROOF_MODEL_BYTES_MAX
    )


def levels_of_model(manifest: Manifest) -> list[str]:
    """The words of the levels that a model can be asked at, if peers do what they need."""
    found = levels_of(manifest.operations, manifest.format)
    return [*found, Level.ZERO_KNOWLEDGE.word] if is_provable(manifest) else found


def levels_of(operations: Iterable[str], model_format: str) -> list[str]:
    """The words of the levels at which answers of such a model can be computed again."""
    known = [OPERATIONS[it] for it in operations if it in OPERATIONS]
    can_check = any(it.comparison is not None for it in known)
    is_exact = can_check and model_format in EXACT_FORMATS
    possible = {Level.SIGNED} | (set(CHECKED) if can_check else set())
    possible |= {Level.EXACT} if is_exact else set()
    return [it.word for it in POSSIBLE if it in possible]


class LevelImpossible(InputError):
    """A level that is there, asked for of a model that cannot be checked so."""


def not_exact(model: str) -> LevelImpossible:
    """Why an answer of a model cannot be asked for at the level exact."""
    return LevelImpossible(
        f"the level exact is for models in whole numbers, and {model} is not known to be one",
        todo="make one with models quantize --exact, or ask for the level replayed",
    )


def not_provable(model: str) -> LevelImpossible:
    """Why an answer of a model cannot be asked for at the level zk."""
    return LevelImpossible(
        "the level zk is for calls of ONNX models whose file has up to"
        f" {limits.PROOF_MODEL_BYTES_MAX >> 10} KiB, and {model} is not known to be one",
        todo="ask for the level replayed, or make it exact with models quantize --exact",
    )
