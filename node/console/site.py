"""What the console answers to each request: to whom it answers at all, pages, events, buttons."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import trio

from node.console.live import LivePage
from node.console.rendering import enter_page_of, page_of, peers_page_of
from node.console.sessions import SESSION_LIFE_S, Session, Sessions, cookie_of
from node.console.visitor import ALWAYS, headers_of, stranger
from node.gateway.http_exchange import Exchange, Headers, RequestRefused
from node.gateway.keys import Keyring
from node.gateway.request_parser import Refusal
from p2p.timeouts import stretched
from wire.errors import BatonError

TOKEN = "x-baton-token"  # noqa: S105 - the name of a header
FORM_BYTES_MAX = 4096
# Whoever wants a body says how long it may take to come.
FORM_S = 5.0
PEERS_EACH = 100
PAGES_MAX = 1000
# An event stream on which nothing happens says so, so that its end is noticed on both sides.
SILENT_S = 15.0
# Between two messages to one watcher.
MESSAGE_EVERY_S = 0.9
_STATIC = Path(__file__).parent / "static"
_TYPES = {
    "/console.css": b"text/css; charset=utf-8",
    "/console.js": b"text/javascript; charset=utf-8",
    "/console.svg": b"image/svg+xml",
}
_HTML = (b"content-type", b"text/html; charset=utf-8")
_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream")
_NO_SESSION = "This browser has not been let in, or was signed out."


@dataclass(frozen=True, slots=True)
class Visit:
    """One request that may be this console's own: its headers, its query and its session."""

    exchange: Exchange
    headers: Mapping[str, str]
    query: Mapping[str, str]
    cookie: str
    session: Session | None

    @property
    def address(self) -> str:
        """Where the request comes from."""
        return str(self.exchange.channel.address[0])

    async def page(self, status: int, body: bytes, *more: tuple[bytes, bytes]) -> None:
        """Answer with a page."""
        await self.exchange.respond(status, [_HTML, *more], body)

    async def tell(self, status: int, message: str, *more: tuple[bytes, bytes]) -> None:
        """Answer with words, as JSON."""
        body = json.dumps({"message": message}).encode()
        await self.exchange.respond(status, [_JSON, *more], body)


Answer = Callable[[Visit], Awaitable[None]]


@dataclass(slots=True)
class ConsoleSite:
    """The console's pages. `keyring` lets in by an API key, where others than this machine come."""

    live: LivePage
    sessions: Sessions
    cookie_name: str
    keyring: Keyring | None = None
    # Names the state folder in a command to type, for whoever was let in.
    advised: Callable[[str], str] = str
    _static: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._static = {name: (_STATIC / name[1:]).read_bytes() for name in _TYPES}

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        exchange.extra_headers = list(ALWAYS)
        try:
            await self._handle(exchange)
        except RequestRefused as error:
            await _refuse(exchange, error.refusal.status, error.refusal.message)
        except BatonError as error:
            if exchange.is_begun:
                raise
            await _refuse(exchange, 503, error.message)

    async def _handle(self, exchange: Exchange) -> None:
        head = exchange.request.head
        headers = headers_of(head.headers)
        if why := stranger(head.method, headers):
            await _refuse(exchange, 403, why)
            return
        path, _, query = head.target.decode("latin-1").partition("?")
        if head.method in ("GET", "HEAD") and path in self._static:
            await exchange.respond(200, [(b"content-type", _TYPES[path])], self._static[path])
            return
        answers = {"GET": self._pages(), "HEAD": self._pages(), "POST": self._changes()}
        answer = answers.get(head.method, {}).get(path)
        if answer is None:
            known = any(path in it for it in answers.values())
            words = "that is not how this is asked for" if known else "there is no such page"
            await _refuse(exchange, 405 if known else 404, words)
            return
        cookie = cookie_of(headers, self.cookie_name)
        session = self.sessions.of(cookie, trio.current_time())
        visit = Visit(exchange, headers, _query_of(query), cookie, session)
        if path == "/enter":
            await answer(visit)
        elif session is None:
            await self._let_nobody_in(visit, _NO_SESSION)
        elif head.method == "POST" and not session.confirms(headers.get(TOKEN, "")):
            await visit.tell(403, f"what changes something needs the page's own {TOKEN} header")
        else:
            await answer(visit)

    def _pages(self) -> dict[str, Answer]:
        return {
            "/": self._page,
            "/peers": self._peers,
            "/events": self._events,
            "/state": self._state,
            "/enter": self._enter,
        }

    def _changes(self) -> dict[str, Answer]:
        return {
            "/pause": self._pause,
            "/resume": self._resume,
            "/leave": self._leave,
            "/doctor": self._doctor,
            "/signout": self._sign_out,
            "/enter": self._enter_by_key,
        }

    # Coming in

    async def _let_nobody_in(self, visit: Visit, words: str, status: int = 401) -> None:
        if visit.exchange.request.head.method == "POST":
            await visit.tell(status, words)
        else:
            page = enter_page_of(words, by_key=self.keyring is not None)
            await visit.page(status, page)

    async def _enter(self, visit: Visit) -> None:
        if visit.exchange.request.head.method == "HEAD":
            # What only looks whether a link is good, as programs do that show one, uses it not up.
            await visit.page(200, enter_page_of("", by_key=self.keyring is not None))
            return
        now_at_s = trio.current_time()
        if not self.sessions.may_guess(now_at_s, visit.address):
            await self._let_nobody_in(visit, "Too many tries: wait a few seconds.", 429)
            return
        cookie = self.sessions.redeem(visit.query.get("code", ""), now_at_s)
        if cookie is None:
            await self._let_nobody_in(visit, "This link was used before, or is too old.")
            return
        await self._let_in(visit, cookie)

    async def _enter_by_key(self, visit: Visit) -> None:
        now_at_s = trio.current_time()
        if self.keyring is None:
            await self._let_nobody_in(visit, "Here nobody comes in by a key.", 403)
            return
        form = await _form_of(visit.exchange)
        if not self.sessions.may_guess(now_at_s, visit.address):
            page = enter_page_of("Too many tries: wait a few seconds.", by_key=True)
            await visit.page(429, page)
            return
        if self.keyring.holder(form.get("key", ""), now_at_s) is None:
            await visit.page(401, enter_page_of("That is no API key of this peer.", by_key=True))
            return
        await self._let_in(visit, self.sessions.begin(now_at_s))

    async def _let_in(self, visit: Visit, cookie: str) -> None:
        life = f"Max-Age={SESSION_LIFE_S:.0f}; Path=/; HttpOnly; SameSite=Strict"
        told = f"{self.cookie_name}={cookie}; {life}".encode()
        headers: Headers = [(b"location", b"/"), (b"set-cookie", told)]
        await visit.exchange.respond(303, headers)

    # Looking

    async def _page(self, visit: Visit) -> None:
        assert visit.session is not None
        await self.live.look()
        if not self.live.parts:
            await visit.page(503, enter_page_of("The peer cannot tell now.", by_key=False))
            return
        parts, version = self.live.parts, self.live.version
        await visit.page(200, page_of(parts, version, visit.session.token, self.advised))

    async def _peers(self, visit: Visit) -> None:
        page = _number_of(visit.query, "page", PAGES_MAX)
        found = await self.live.source.ask("peers", count=PEERS_EACH, after=page * PEERS_EACH)
        await visit.page(200, peers_page_of(found, page, PEERS_EACH))

    async def _state(self, visit: Visit) -> None:
        body = json.dumps({"watchers": self.live.watchers, "full": self.live.is_full}).encode()
        await visit.exchange.respond(200, [_JSON], body)

    async def _events(self, visit: Visit) -> None:
        if self.live.is_full:
            await visit.tell(503, "as many pages are open as may be", (b"retry-after", b"10"))
            return
        version = _number_of(visit.query, "since", 1 << 53)
        exchange = visit.exchange
        with self.live.watched():
            exchange.hold_connection()
            exchange.start(200, [_EVENTS])
            await exchange.send(b"retry: 2000\n\n", more=True)
            while self.sessions.of(visit.cookie, trio.current_time()) is not None:
                with trio.move_on_after(SILENT_S) as waiting:
                    await self.live.until_news()
                if waiting.cancelled_caught:
                    await exchange.send(b": nothing new\n\n", more=True)
                    continue
                changed = self.live.changes_since(version)
                version = self.live.version
                if changed:
                    message = json.dumps({"version": version, "parts": changed})
                    await exchange.send(f"data: {message}\n\n".encode(), more=True)
        await exchange.send(b"", more=False)

    # Changing

    async def _pause(self, visit: Visit) -> None:
        await self.live.source.ask("pause")
        await visit.tell(200, "Paused: what was taken is finished, and nothing new is taken.")

    async def _resume(self, visit: Visit) -> None:
        still = (await self.live.source.ask("resume"))["paused"]
        await visit.tell(
            200, f"Not paused by you any more, but: {still}" if still else "It goes on."
        )

    async def _leave(self, visit: Visit) -> None:
        await visit.tell(200, "The peer finishes its work and leaves.")
        await self.live.source.ask("leave")

    async def _doctor(self, visit: Visit) -> None:
        if await self.live.source.examine_again():
            await visit.tell(200, "All causes were looked at again.")
        else:
            await visit.tell(200, "That was looked at a moment ago.")

    async def _sign_out(self, visit: Visit) -> None:
        self.sessions.end(visit.cookie)
        gone = f"{self.cookie_name}=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict".encode()
        await visit.tell(200, "Signed out.", (b"set-cookie", gone))


async def _refuse(exchange: Exchange, status: int, words: str) -> None:
    await exchange.respond(status, [_JSON], json.dumps({"message": words}).encode())


def _query_of(text: str) -> dict[str, str]:
    """The first value of each name; what is no query is an empty one."""
    try:
        return {name: values[0] for name, values in parse_qs(text, max_num_fields=8).items()}
    except ValueError:
        return {}


def _number_of(query: Mapping[str, str], name: str, most: int) -> int:
    """A number from the query, 0 where it is none."""
    text = query.get(name, "")
    return min(int(text), most) if text.isascii() and text.isdecimal() and len(text) < 17 else 0


async def _form_of(exchange: Exchange) -> dict[str, str]:
    """What a small form says; nothing of one that is large, RequestRefused for one that is slow."""
    data = b""
    with trio.move_on_after(stretched(FORM_S)) as waiting:
        while part := await exchange.body_part():
            data += part
            if len(data) > FORM_BYTES_MAX:
                return {}
    if waiting.cancelled_caught:
        words = f"the form did not come within {FORM_S:g} s"
        raise RequestRefused(Refusal(408, words, "body_too_slow"))
    return _query_of(data.decode("latin-1"))
