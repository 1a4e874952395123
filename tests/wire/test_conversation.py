"""A conversation goes on only as the table says; whoever breaks it is blamed, and nothing moves."""

import itertools

import pytest

from tests.each import named
from tests.wire.samples import BY_NAME, MESSAGES, name_of
from wire.conversation import TRANSITIONS, CallProtocol, CallState, Speaker
from wire.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from wire.message import Message

ASKER, ANSWERER = Speaker.ASKER, Speaker.ANSWERER

# Every conversation there is, told whole: what the asker says, then what it is answered, but for
# what is marked as the asker's again.
DIALOGUES = [
    "Hello Welcome",
    "Hello Refuse",
    "Ping Pong",
    "Ping Refuse",
    "Swap Newer asker:Newer",
    "Swap Refuse",
    "Seek Newer",
    "Seek Refuse",
    "Goodbye Pong",
    "Quote Quoted",
    "Quote Refuse",
    "Offer Refuse",
    "Offer Accept Result",
    "Offer Accept Refuse",
    "Offer Accept Piece Piece Result",
    "Offer Accept Piece Refuse",
    "Check VerdictReply",
    "Check Refuse",
    "Check VerdictCommitted Refuse",
    "Check VerdictCommitted asker:TellVerdict Refuse",
    "Check VerdictCommitted asker:TellVerdict VerdictReply",
    "AskContribution Contributed",
    "AskContribution Refuse",
    "Want BlockReply",
    "Want Refuse",
    "WantBlocks Refuse",
    "WantBlocks BlocksComing BlocksSent",
    "WantBlocks BlocksComing BlockReply BlockReply BlocksSent",
    "WantBlocks BlocksComing BlockReply Refuse",
    "Keep Keeping",
    "Keep Refuse",
    "DialBack DialedBack",
    "DialBack Refuse",
    "Reserve Reserved",
    "Reserve Refuse",
    "Contest Refuse",
    "Contest Committed asker:Settled",
    "Contest Committed asker:Descend Refuse",
    "Contest Committed asker:Reveal Refuse",
    "Contest Committed asker:Descend Children asker:Reveal Revealed asker:Settled",
    "Open Refuse",
    "Open Opened asker:Close",
    "Open Opened Refuse",
    "Open Opened Places asker:Bundle asker:Bundle Taken Outcomes asker:Close",
    "Open Opened asker:Bundle asker:Withdraw Outcomes asker:Close",
    "Open Opened asker:Bundle Outcomes Refuse",
    "OpenChecks Refuse",
    "OpenChecks Opened asker:Close",
    "OpenChecks Opened Refuse",
    "OpenChecks Opened Places asker:Checks asker:Withdraw Verdicts asker:Checks asker:Close",
    "OpenChecks Opened asker:Checks Commitments asker:TellVerdicts Verdicts asker:Close",
    "StageOpen Refuse",
    "StageOpen StageOpened asker:StageClose",
    "StageOpen StageOpened asker:StagePass asker:StagePass StagePassed asker:StageClose",
    "StageOpen StageOpened asker:StagePass Refuse",
    "StageOpen StageOpened asker:StagePass asker:StageSign StagePassed StageSigned Refuse",
    "StageOpen StageOpened asker:StageSign Refuse",
    "SubmitOrder Voted",
    "SubmitOrder Refuse",
    "Confirm Acknowledged",
    "Confirm Refuse",
    "AskAccount AccountState",
    "AskAccount Refuse",
    "EpochNews EpochNews",
    "EpochNews Refuse",
    "AskBucket BucketOrders",
    "AskBucket Refuse",
    "AskCertificates Certificates",
    "AskCertificates Refuse",
    "AskCheckpoint CheckpointReply",
    "AskCheckpoint Refuse",
    "AskStakes StakeRows",
    "AskStakes Refuse",
    "AskCredits CreditsGiven",
    "AskCredits Refuse",
    "Pay Paid",
    "Pay Refuse",
    "AskPlace LogPlace",
    "AskPlace Refuse",
    "AskHeads LogNews",
    "AskHeads Refuse",
    "LogNews LogNews",
    "LogNews Refuse",
    "AskFeed FeedPage",
    "AskFeed Refuse",
    "AskAppKey AppKeyTold",
    "AskAppKey Refuse",
    "AskRevokedKeys RevokedKeysTold",
    "AskRevokedKeys Refuse",
    "ClaimInvite ClaimNonce asker:ClaimSigned Admitted",
    "ClaimInvite ClaimNonce asker:ClaimSigned Refuse",
    "ClaimInvite Refuse",
    "Renew Admitted",
    "RevokedNews RevokedNews",
    "RevokedNews Refuse",
]

# One test for all messages: a test for each would spend more on itself than on what it looks at.
every_moment = pytest.mark.parametrize(
    ("state", "speaker"),
    list(itertools.product(CallState, Speaker)),
    ids=lambda item: item.name,
)


def message_of(name: str) -> Message:
    message = BY_NAME[name]
    assert isinstance(message, Message)
    return message


def conversation_in(state: CallState, side: Speaker) -> CallProtocol:
    conversation = CallProtocol(side)
    conversation.state = state
    return conversation


@every_moment
def test_a_message_is_legal_by_the_table_or_blamed_on_who_said_it(
    state: CallState, speaker: Speaker
) -> None:
    for message in MESSAGES:
        with named(name_of(message)):
            is_legal_or_blamed(state, speaker, message)


def is_legal_or_blamed(state: CallState, speaker: Speaker, message: Message) -> None:
    other = ANSWERER if speaker is ASKER else ASKER
    ours, theirs = conversation_in(state, speaker), conversation_in(state, other)
    follows = TRANSITIONS.get((state, speaker, type(message)))
    if follows is not None:
        ours.sent(message)
        theirs.received(message)
        assert ours.state is theirs.state is follows
        return
    with pytest.raises(LocalProtocolError, match=f"{name_of(message)} .* in {state.name}"):
        ours.sent(message)
    with pytest.raises(RemoteProtocolError, match=f"{name_of(message)} .* in {state.name}"):
        theirs.received(message)
    assert ours.state is theirs.state is state


def told(dialogue: str) -> tuple[CallProtocol, CallProtocol]:
    """Both sides' conversations after a dialogue."""
    sides = {ASKER: CallProtocol(ASKER), ANSWERER: CallProtocol(ANSWERER)}
    for speaker, name in turns(dialogue):
        assert not sides[ASKER].done
        sides[speaker].sent(message_of(name))
        sides[ANSWERER if speaker is ASKER else ASKER].received(message_of(name))
        assert sides[ASKER].state is sides[ANSWERER].state
    return sides[ASKER], sides[ANSWERER]


def turns(dialogue: str) -> list[tuple[Speaker, str]]:
    """Who says what."""
    first, *rest = dialogue.split()
    answers = [
        (ASKER if name.startswith("asker:") else ANSWERER, name.removeprefix("asker:"))
        for name in rest
    ]
    return [(ASKER, first), *answers]


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_a_dialogue_ends_and_nothing_may_follow(dialogue: str) -> None:
    for conversation in told(dialogue):
        assert conversation.done
        for message in MESSAGES:
            with pytest.raises(ProtocolError):
                conversation.sent(message)
            with pytest.raises(ProtocolError):
                conversation.received(message)
        assert conversation.done


def test_the_dialogues_told_here_are_all_there_are() -> None:
    seen = set()
    for dialogue in DIALOGUES:
        state = CallState.IDLE
        for speaker, name in turns(dialogue):
            moment = (state, speaker, type(message_of(name)))
            seen.add(moment)
            state = TRANSITIONS[moment]
    assert seen == set(TRANSITIONS)


def test_every_message_has_its_place_and_every_state_is_left_but_the_last() -> None:
    assert {kind for _, _, kind in TRANSITIONS} == set(map(type, MESSAGES))
    assert {state for state, _, _ in TRANSITIONS} == set(CallState) - {CallState.DONE}
    assert set(TRANSITIONS.values()) == set(CallState) - {CallState.IDLE}


def test_only_the_asker_opens_and_but_for_the_end_of_a_swap_only_the_answerer_goes_on() -> None:
    # In a dispute the asker asks one question after the other; a newcomer signs what it was told.
    askers_turn = {
        CallState.IDLE,
        CallState.SWAPPING,
        CallState.COMMITTED,
        CallState.CLAIM_ASKED,
    }
    for state, speaker, _ in TRANSITIONS:
        if state in {
            *(CallState.STANDING, CallState.CHECKS_STANDING, CallState.STAGED),
            CallState.HOLDING,
        }:
            # In these both sides speak when they have something to say.
            continue
        assert speaker is (ASKER if state in askers_turn else ANSWERER)


def test_a_conversation_goes_on_after_an_illegal_message_as_if_it_had_not_come() -> None:
    asker = CallProtocol(ASKER)
    asker.sent(message_of("Offer"))
    with pytest.raises(RemoteProtocolError):
        asker.received(message_of("Piece"))
    asker.received(message_of("Accept"))
    with pytest.raises(LocalProtocolError):
        asker.sent(message_of("Offer"))
    asker.received(message_of("Result"))
    assert asker.done
