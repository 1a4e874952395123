"""A source of the kind http, brought in: one document, or page after page of one host.

Each page costs the asker and the host what a fetch of its own costs, so pages come as slowly as the
host's budget lets them.
"""

from dataclasses import dataclass, field

import trio

from node.ingest.budget import FetchBudget
from node.ingest.came import Came
from node.ingest.extractor import Extractor
from node.ingest.http_fetch import BODY_BYTES_MAX, HttpFetcher, Request, Response
from node.ingest.location import HostRules, Location, read_url
from node.ingest.owned import OwnedSources
from node.ingest.paging import first_page, page_after
from node.ingest.robots import Robots
from node.ingest.source_file import credentials_of
from wire.codec import pack
from wire.content import PeerId
from wire.errors import Malformed, Oversize, Refused, TooSlow
from wire.fetch import FetchedPage, HeaderField, Paging, SourceRecord
from wire.tree import name_of

HEADER_CHARS_MAX = 1024
PAGES_S_MAX = 60.0
# Where the first of several pages is known, and no waiting for a budget is worth more.
_WAIT_S_MAX = 5.0


@dataclass(slots=True)
class OverHttp:
    """Brings in what servers give, under the owner's rules."""

    owned: OwnedSources
    fetcher: HttpFetcher
    extractor: Extractor
    budget: FetchBudget
    robots: Robots = field(init=False)

    def __post_init__(self) -> None:
        self.robots = Robots(self.fetcher)

    async def bring(self, source: SourceRecord, asker: PeerId | None, *, strange: bool) -> Came:
        """What came; a BatonError if the rules, a budget or the server lets nothing come."""
        rules = await trio.to_thread.run_sync(self.owned.rules)
        secret = await trio.to_thread.run_sync(self.owned.secrets_of, source)
        named = credentials_of(source)
        asked = Request(
            location=read_url(source.place),
            headers={it.name: it.value for it in source.headers if it.name not in named},
            secret=secret,
            strange=strange,
            asker=asker,
        )
        if not source.paging:
            found = await self._one(asked, rules, asker)
            return Came(
                found.urls, found.body, found.status, _kept(source, found), found.certificates
            )
        try:
            with trio.fail_after(PAGES_S_MAX):
                return await self._pages(source, source.paging[0], asked, rules, asker)
        except trio.TooSlowError as error:
            raise TooSlow(
                f"the pages of {asked.location.place} did not come within {PAGES_S_MAX:g} s",
                todo="ask for fewer: pages = … in its [paging]",
            ) from error

    async def _one(self, asked: Request, rules: HostRules, asker: PeerId | None) -> Response:
        rules.check(asked.location, strange=asked.strange)
        self.budget.take(asked.location.host, asker, trio.current_time())
        await self.robots.check(asked.location, rules, strange=asked.strange, asker=asker)
        return await self.fetcher.get(asked, rules)

    async def _pages(
        self,
        source: SourceRecord,
        paging: Paging,
        asked: Request,
        rules: HostRules,
        asker: PeerId | None,
    ) -> Came:
        first = first_page(paging, source.place)
        location: Location | None = first
        found: list[Response] = []
        seen: set[str] = set()
        while location is not None and len(found) < paging.pages_max:
            if location.url in seen:
                raise Malformed(f"the pages of {location.place} lead in a circle: {location.url}")
            seen.add(location.url)
            request = Request(
                location=location,
                headers=asked.headers,
                secret=asked.secret,
                strange=asked.strange,
                asker=asker,
            )
            page = await self._in_time(request, rules, asker, may_wait=bool(found))
            found.append(page)
            if sum(len(it.body) for it in found) > BODY_BYTES_MAX:
                raise Oversize(
                    f"the pages of {location.place} have more than {BODY_BYTES_MAX} bytes",
                    todo="ask for fewer: pages = … in its [paging]",
                )
            async with self.extractor.turn(of_others=asker is not None):
                said, rows = await self.extractor.after_page(
                    source.extraction, paging.next, page.body
                )
            location = page_after(paging, first, location, len(found) - 1, said, rows)
        pages = tuple(
            FetchedPage(
                url=it.urls[0],
                status=it.status,
                certificates=it.certificates,
                body=name_of(it.body),
            )
            for it in found
        )
        body = pack([it.body for it in found])
        kept = _kept(source, found[0])
        return Came(
            urls=found[0].urls,
            body=body,
            status=found[0].status,
            headers=kept,
            certificates=found[0].certificates,
            pages=pages,
            more=location is not None,
        )

    async def _in_time(
        self, request: Request, rules: HostRules, asker: PeerId | None, *, may_wait: bool
    ) -> Response:
        """A page, once the budgets let it come; the first one is refused like any other fetch."""
        while True:
            try:
                return await self._one(request, rules, asker)
            except Refused as error:
                wait_s = error.retry_after_s or _WAIT_S_MAX
                if not may_wait or wait_s > _WAIT_S_MAX:
                    raise
                await trio.sleep(wait_s)


def _kept(source: SourceRecord, found: Response) -> tuple[HeaderField, ...]:
    return tuple(
        HeaderField(name=name, value=value[:HEADER_CHARS_MAX].encode("ascii", "replace").decode())
        for name, value in dict(found.headers).items()
        if name in source.kept_headers
    )
