"""What follows from a refusal is in one table, and every code stands in it."""

import pytest

from node.task.refusals import CONSEQUENCES, ask_again_s
from wire.errors import Disconnected, EngineFailed, Refused
from wire.kinds import RefusalCode


def test_every_code_has_its_consequence() -> None:
    assert set(CONSEQUENCES) == set(RefusalCode)


@pytest.mark.parametrize("code", RefusalCode)
def test_what_the_request_is_to_blame_for_is_the_clients_error_and_nothing_else_is_400(
    code: RefusalCode,
) -> None:
    follows = CONSEQUENCES[code]
    assert (follows.status == 400) is follows.of_request
    # What would be refused again is not asked again, whatever time the refusal names.
    assert not (follows.of_request and follows.again)


def test_who_is_busy_is_asked_again_when_it_said_and_who_declined_is_not() -> None:
    assert ask_again_s(Refused("full", retry_after_s=2.0)) == 2.0
    assert ask_again_s(Refused("no", code=RefusalCode.BUSY)) is None
    assert ask_again_s(Refused("?", code=RefusalCode.MALFORMED, retry_after_s=0.01)) is None
    assert ask_again_s(Refused("?", code=RefusalCode.LEAVING, retry_after_s=0.01)) is None
    assert ask_again_s(Disconnected("gone")) is None
    assert ask_again_s(EngineFailed("dead")) is None
