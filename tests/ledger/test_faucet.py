"""A sponsor gives newcomers credits: each key once, so much in an epoch, whoever asks and how."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.ledger.faucet import WAITING_MAX, Faucet
from node.ledger.faucet_book import KEYS_OF_PREFIX_MAX, FaucetBook
from node.ledger.faucet_puzzle import (
    BITS_FIRST,
    BITS_TRIED_MAX,
    bits_needed,
    packed,
    solve,
    words_of,
)
from node.ledger.wallet import Wallet
from node.local.ledger_commands import LedgerCommands
from node.paying_config import Sponsoring, read_sponsoring
from node.peer import Node
from store import Table, open_memory_store
from tests.ledger.test_members import CREDIT, EPOCH_S, genesis_of, ledger_of, start, unheard
from tests.node.network import Network, open_network
from wire.content import ContentId, PeerId
from wire.errors import InputError, Malformed, Refused, StoreFull
from wire.kinds import RefusalCode
from wire.ledger_message import AskCredits, CreditsGiven
from wire.message import Message, Refuse

TERMS = Sponsoring(per_epoch=4 * CREDIT, each=CREDIT)


def faucet_of(node: Node) -> Faucet:
    found = node.peers.handlers[AskCredits].__self__  # type: ignore[attr-defined]
    assert isinstance(found, Faucet)
    return found


async def faucet(node: Node, **arguments: Any) -> dict[str, Any]:
    return await LedgerCommands(node).faucet(arguments, unheard)


async def sponsored(network: Network, **options: Any) -> tuple[Node, Node]:
    """A member that sponsors, and a newcomer."""
    genesis = genesis_of(network, members=1, granted=0)
    sponsor = await start(network, genesis, 0, sponsoring=TERMS, **options)
    newcomer = await start(network, genesis, 1)
    await trio.sleep(5)
    return sponsor, newcomer


class Asker:
    """A call from some key that never was connected: what it is answered."""

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self.answers: list[Message] = []

    async def send(self, message: Message) -> None:
        self.answers.append(message)

    async def ask(self, node: Node, network: ContentId | None = None) -> Message:
        message = AskCredits(network=network or ledger_of(node).genesis.id)
        await faucet_of(node).on_ask(self, message)  # type: ignore[arg-type]
        return self.answers[-1]


async def test_a_newcomer_is_given_credits_once_and_by_whom_it_finds(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        sponsor, newcomer = await sponsored(network)
        given = await faucet(newcomer)
        assert (given["amount"], given["balance"]) == (CREDIT, CREDIT)
        assert given["sponsor"] == str(sponsor.peers.me)
        with pytest.raises(Refused, match="gives to each key once"):
            await faucet(newcomer, sponsor=str(sponsor.peers.me))
        assert sponsor.status_sources["sponsor"]()["given"] == CREDIT
        # The newcomer gives nothing, and neither does anybody to itself.
        with pytest.raises(Refused, match="gives no credits to newcomers"):
            await faucet(sponsor, sponsor=str(newcomer.peers.me))
        with pytest.raises(InputError, match="gives itself nothing"):
            await faucet(newcomer, sponsor=str(newcomer.peers.me))
        with pytest.raises(InputError, match="not a key"):
            await faucet(newcomer, sponsor="me")


async def test_a_peer_that_knows_nobody_or_no_sponsor_says_what_to_do(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=1, granted=0)
        alone = await start(network, genesis, 0)
        with pytest.raises(InputError, match="no other peer is connected"):
            await faucet(alone)
        newcomer = await start(network, genesis, 1)
        await trio.sleep(5)
        with pytest.raises(Refused, match=r"nobody gave credits .*gives no credits") as refused:
            await faucet(newcomer)
        assert "--sponsor" in refused.value.todo


async def test_a_hundred_thousand_keys_cost_a_sponsor_its_cap_and_no_more_memory(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as store:
        sponsor, _ = await sponsored(network, store=store)
        faucet = faucet_of(sponsor)
        answers = [await Asker(network.key(100 + it).peer).ask(sponsor) for it in range(4)]
        assert all(isinstance(it, CreditsGiven) for it in answers)
        refused = 0
        for number in range(100_000):
            try:
                faucet._begun(PeerId(number.to_bytes(32, "big")))
            except Refused:
                refused += 1
        assert refused == 100_000
        refusal = await Asker(network.key(200).peer).ask(sponsor)
        assert isinstance(refusal, Refuse)
        assert 0 < (refusal.retry_after_ms or 0) <= EPOCH_S * 1000
        balance = (await ledger_of(sponsor).wallet.look()).balance
        assert balance == 100 * CREDIT - TERMS.per_epoch
        assert faucet.book is not None
        assert (len(faucet.book.prefixes), faucet._asking) == (1, {})
        assert len(store.scan(Table.SPONSORED)) == 4 + 1


async def test_a_new_epoch_gives_again_and_a_start_does_not(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as store:
        sponsor, newcomer = await sponsored(network, store=store)
        for number in range(3):
            answer = await Asker(network.key(100 + number).peer).ask(sponsor)
            assert isinstance(answer, CreditsGiven)
        network.kill(sponsor)
        network.nodes.clear()
        sponsor = await start(
            network, ledger_of(newcomer).genesis, 0, sponsoring=TERMS, store=store
        )
        await trio.sleep(2)
        answers = [await Asker(network.key(number).peer).ask(sponsor) for number in (100, 103, 104)]
        assert [type(it) for it in answers] == [Refuse, CreditsGiven, Refuse]
        await trio.sleep(EPOCH_S)
        assert isinstance(await Asker(network.key(104).peer).ask(sponsor), CreditsGiven)


async def test_two_calls_of_a_key_at_once_are_one_payment_and_too_many_keys_come_back(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=1, granted=0)
        terms = Sponsoring(per_epoch=100 * CREDIT, each=CREDIT)
        sponsor = await start(network, genesis, 0, sponsoring=terms)
        await trio.sleep(5)
        monkeypatch.setattr("node.ledger.faucet_book.KEYS_OF_PREFIX_MAX", 1000)
        askers = [Asker(network.key(100 + it // 2).peer) for it in range(2 * WAITING_MAX + 2)]
        async with trio.open_nursery() as nursery:
            for asker in askers:
                nursery.start_soon(asker.ask, sponsor)
        given = [it.answers[0] for it in askers if isinstance(it.answers[0], CreditsGiven)]
        assert len(given) == 2 * WAITING_MAX
        assert len({it.order for it in given}) == WAITING_MAX
        assert (await ledger_of(sponsor).wallet.look()).balance == (100 - WAITING_MAX) * CREDIT


async def test_a_sponsor_that_cannot_pay_rests_and_the_key_may_ask_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as store:
        sponsor, newcomer = await sponsored(network, store=store)
        wallet = ledger_of(sponsor).wallet
        await wallet.pay(newcomer.peers.me, 100 * CREDIT - 1000, unheard)
        first, second = (network.key(number).peer for number in (100, 101))
        refusal = await Asker(first).ask(sponsor)
        assert isinstance(refusal, Refuse)
        assert "could not pay" in refusal.reason
        again = await Asker(second).ask(sponsor)
        assert isinstance(again, Refuse)
        assert again.reason == refusal.reason
        assert faucet_of(sponsor).statistics()["given"] == 0
        await ledger_of(newcomer).wallet.pay(sponsor.peers.me, 9 * CREDIT, unheard)
        await trio.sleep(61)
        assert isinstance(await Asker(first).ask(sponsor), CreditsGiven)


async def test_a_payment_that_an_end_interrupted_is_made_once_or_may_be_asked_for_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as store:
        sponsor, newcomer = await sponsored(network, store=store)
        ordered, forgotten = (network.key(number).peer for number in (100, 101))
        await ledger_of(sponsor).wallet.pay(ordered, CREDIT, unheard)
        for peer in (ordered, forgotten):
            # It was written that the key is paid, and not what became of that.
            for prefix in (b"k", b"o"):
                await store.write(Table.SPONSORED, prefix + peer, b"")
        network.kill(sponsor)
        network.nodes.clear()
        sponsor = await start(
            network, ledger_of(newcomer).genesis, 0, sponsoring=TERMS, store=store
        )
        await trio.sleep(2)
        answers = [await Asker(it).ask(sponsor) for it in (ordered, forgotten)]
        assert [type(it) for it in answers] == [Refuse, CreditsGiven]
        assert store.scan(Table.SPONSORED, prefix=b"o") == []


async def test_a_disk_that_is_full_gives_nothing_and_counts_nothing(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        sponsor, _ = await sponsored(network)
        faucet = faucet_of(sponsor)

        class Full:
            def read(self, *_: object) -> None:
                return None

            async def commit(self, _: object) -> None:
                raise StoreFull("no room left")

        monkeypatch.setattr(faucet, "store", Full())
        answer = await Asker(network.key(100).peer).ask(sponsor)
        assert isinstance(answer, Refuse)
        assert "no room left" in answer.reason
        assert faucet.statistics()["given"] == 0
        assert (await ledger_of(sponsor).wallet.look()).balance == 100 * CREDIT


async def test_another_network_is_refused(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        sponsor, _ = await sponsored(network)
        answer = await Asker(network.key(100).peer).ask(sponsor, ContentId.of(b"other"))
        assert isinstance(answer, Refuse)
        assert answer.cause is RefusalCode.STRANGER


def test_keys_of_one_prefix_get_a_few_and_others_the_rest() -> None:
    book = FaucetBook(Sponsoring(per_epoch=10 * CREDIT, each=CREDIT))
    book.begin(7)
    for _ in range(KEYS_OF_PREFIX_MAX):
        book.check("192.0.2.0/24", 9.0)
        book.take("192.0.2.0/24")
    with pytest.raises(Refused, match="near your address") as refused:
        book.check("192.0.2.0/24", 9.0)
    assert refused.value.retry_after_s == 9.0
    book.check("198.51.100.0/24", 9.0)
    book = FaucetBook.from_bytes(book.terms, book.to_bytes())
    assert book.given == KEYS_OF_PREFIX_MAX * CREDIT
    # A clock that is set back over the end of an epoch gives nothing twice.
    book.begin(6)
    with pytest.raises(Refused, match="near your address"):
        book.check("192.0.2.0/24", 9.0)
    book.put_back(6, "192.0.2.0/24")
    assert book.given == KEYS_OF_PREFIX_MAX * CREDIT
    book.put_back(7, "192.0.2.0/24")
    book.check("192.0.2.0/24", 9.0)
    book.begin(8)
    assert (book.given, book.prefixes) == (0, {})


@pytest.mark.parametrize(
    ("per_epoch", "each", "why"),
    [
        (None, "1", "alone gives nothing"),
        ("1", "2", "more than"),
        ("100", "0.001", "at most 1000"),
        ("0", None, "cannot be paid"),
        ("-1", None, "not an amount"),
        ("1e3", None, "not an amount"),
        ("0.1", None, "more than"),
    ],
)
def test_what_a_sponsor_cannot_give_says_why(
    per_epoch: str | None, each: str | None, why: str
) -> None:
    with pytest.raises(InputError, match=why):
        read_sponsoring(per_epoch, each)


def test_a_sponsor_is_what_was_typed() -> None:
    TERMS.check_opens(CREDIT)
    with pytest.raises(InputError, match=r"at least 1\.000001"):
        TERMS.check_opens(CREDIT + 1)
    assert read_sponsoring(None, None) is None
    assert read_sponsoring("100", None) == Sponsoring(100 * CREDIT, CREDIT // 2)


async def test_a_wallet_finds_its_latest_orders_however_many_there_are(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.ledger.wallet.SCAN_ROWS_MAX", 2)
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as store:
        sponsor, newcomer = await sponsored(network, store=store)
        wallet = ledger_of(sponsor).wallet
        for _ in range(5):
            await wallet.pay(newcomer.peers.me, CREDIT, unheard)
        again = Wallet(wallet.peers, store, wallet.genesis, wallet.key)
        for log in (wallet.log, again.log):
            assert [it.order.record.sequence for it in log(2)] == [4, 3]
            assert len(log()) == 5


async def test_a_wallet_forgets_its_oldest_orders_as_it_makes_new_ones(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.ledger.wallet.ORDERS_KEPT", 3)
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as store:
        sponsor, newcomer = await sponsored(network, store=store)
        wallet = ledger_of(sponsor).wallet
        for _ in range(5):
            await wallet.pay(newcomer.peers.me, CREDIT, unheard)
        assert [it.order.record.sequence for it in wallet.log()] == [4, 3, 2]
        assert len(store.scan(Table.WALLET)) == 3


async def test_a_sponsor_that_asks_for_work_gives_to_who_does_it_from_any_address(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    terms = Sponsoring(per_epoch=64 * CREDIT, each=CREDIT, puzzle=True)
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=1, granted=0)
        sponsor = await start(network, genesis, 0, sponsoring=terms)
        newcomer = await start(network, genesis, 1)
        await trio.sleep(5)
        given = await faucet(newcomer)
        assert (given["amount"], given["balance"]) == (CREDIT, CREDIT)
        # Without work, with another's, and with that of another period nobody gets any.
        me, period = sponsor.peers.me, int(sponsor.peers.environment.wall_s() // EPOCH_S)
        other = network.key(200).peer
        words = words_of(genesis.id, me, other, period)
        (nonce,) = filter(None, (solve(words, BITS_FIRST, 1, 1 << 22),))
        asked = faucet_of(sponsor)
        for peer, solution, why in (
            (other, b"", "0 are shown"),
            (network.key(201).peer, packed(period, nonce), "is needed now"),
            (other, packed(period + 1, nonce), "is your clock right"),
            (other, b"x", "a period and a nonce"),
        ):
            with pytest.raises((Refused, Malformed), match=why):
                asked._begun(peer, solution)
        assert asked._begun(other, packed(period, nonce)).peer == other


def test_a_flood_of_keys_leaves_some_for_a_newcomer_that_works_a_little_more() -> None:
    keys, random = 1000, Random("flood")
    book = FaucetBook(Sponsoring(per_epoch=keys * CREDIT, each=CREDIT, puzzle=True))
    for period in (1, 2):
        book.begin(period)
        paid = 0
        # Each of 100,000 keys has done the least work; some were lucky. They ask all at once.
        for _ in range(100_000):
            bits = BITS_FIRST
            while random.random() < 0.5:
                bits += 1
            try:
                book.check("one prefix for all", 1.0)
                book.check_work(bits, 1.0)
            except Refused:
                continue
            book.take("one prefix for all")
            paid += 1
        assert paid < keys
        # They have done 6.6 * 10^9 hashes together; the next key needs 50 times fewer.
        needed = bits_needed(paid, keys)
        assert 50 * 2**needed <= 100_000 * 2**BITS_FIRST * 1.1
        assert needed <= BITS_TRIED_MAX
        book.check_work(needed, 1.0)
        book.take("one prefix for all")
    assert len(book.prefixes) == 0


def test_the_cap_of_an_epoch_holds_whatever_work_is_done() -> None:
    book = FaucetBook(Sponsoring(per_epoch=40 * CREDIT, each=CREDIT, puzzle=True))
    book.begin(1)
    for _ in range(40):
        book.check("", 1.0)
        book.check_work(256, 1.0)
        book.take("")
    with pytest.raises(Refused, match="has"):
        book.check("", 1.0)
    with pytest.raises(InputError, match="--sponsor-puzzle alone"):
        read_sponsoring(None, None, puzzle=True)
