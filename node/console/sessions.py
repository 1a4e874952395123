"""Who is let into the console: links that work once, and browsers that came by one. A pure core.

A link is made by `python -m node open`, over a socket that only the peer's user may open. A browser
is known by a cookie that no script can read; the page itself has a second secret, which every
request to change something has to repeat. Both live in memory alone: after a restart a new link is
needed.
"""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from wire.latest import Latest

LINK_LIFE_S = 300.0
# Since it was last used.
SESSION_LIFE_S = 12 * 3600.0
# One more lets the oldest go.
LINKS_MAX = SESSIONS_MAX = 16
# With a key in its place, so often may somebody guess, from each address by itself.
GUESSES_AT_ONCE = 5
GUESS_EVERY_S = 2.0
GUESSERS_KEPT = 1024
# Of what a browser sends as a secret no more is looked at.
SECRET_CHARACTERS_MAX = 128


@dataclass(slots=True)
class Session:
    """One browser: the secret of its cookie is the key in the table, `token` is its page's."""

    token: str
    used_at_s: float

    def confirms(self, token: str) -> bool:
        """Whether a request repeats the page's secret; how long that takes tells nothing."""
        return hmac.compare_digest(self.token.encode(), token.encode(errors="replace"))


@dataclass(slots=True)
class Sessions:
    """The links that were not used yet, and the browsers that are in. Times are trio's clock."""

    entropy: Callable[[int], bytes]
    _links: Latest[str, float] = field(default_factory=lambda: Latest(LINKS_MAX))
    _sessions: Latest[str, Session] = field(default_factory=lambda: Latest(SESSIONS_MAX))
    # Of each address: how many guesses are left, and when it guessed last.
    _guesses: Latest[str, tuple[float, float]] = field(
        default_factory=lambda: Latest(GUESSERS_KEPT)
    )

    def new_link(self, now_at_s: float) -> str:
        """A code for one browser, within `LINK_LIFE_S`."""
        code = self.entropy(24).hex()
        self._links[code] = now_at_s + LINK_LIFE_S
        return code

    def redeem(self, code: str, now_at_s: float) -> str | None:
        """The cookie of a new session for a link's code, which is used up; None for a bad one."""
        until_at_s = self._links.get(code[:SECRET_CHARACTERS_MAX])
        if until_at_s is None:
            return None
        del self._links[code]
        return self.begin(now_at_s) if now_at_s <= until_at_s else None

    def begin(self, now_at_s: float) -> str:
        """The cookie of a new session."""
        cookie = self.entropy(32).hex()
        self._sessions[cookie] = Session(self.entropy(32).hex(), now_at_s)
        return cookie

    def of(self, cookie: str, now_at_s: float) -> Session | None:
        """The session with this cookie, used now; None if there is none, or it was idle too long.

        A cookie is 256 bits of chance and is looked up whole: nobody comes near one by trying.
        """
        session = self._sessions.get(cookie[:SECRET_CHARACTERS_MAX])
        if session is None:
            return None
        if now_at_s - session.used_at_s > SESSION_LIFE_S:
            del self._sessions[cookie]
            return None
        session.used_at_s = now_at_s
        return session

    def end(self, cookie: str) -> None:
        """Forget a session."""
        self._sessions.pop(cookie, None)

    def may_guess(self, now_at_s: float, address: str = "") -> bool:
        """Whether another key or code may be tried from an address now; if so, it is counted."""
        left, guessed_at_s = self._guesses.get(address, (float(GUESSES_AT_ONCE), now_at_s))
        left = min(float(GUESSES_AT_ONCE), left + (now_at_s - guessed_at_s) / GUESS_EVERY_S)
        may = left >= 1.0
        self._guesses[address] = (left - 1.0 if may else left, now_at_s)
        return may


def cookie_of(headers: Mapping[str, str], name: str) -> str:
    """The value of one cookie; "" if there is none, or several of this name."""
    found = [
        value
        for key, equals, value in (
            it.strip().partition("=") for it in headers.get("cookie", "").split(";")
        )
        if equals and key == name
    ]
    return found[0] if len(found) == 1 else ""
