"""The page after a page: its URL, which stays with the host that the owner named. Pure."""

import httpx

from node.ingest.location import Location, read_url
from wire.errors import InputError, Malformed
from wire.fetch import Paging


def first_page(paging: Paging, url: str) -> Location:
    """Where the first page is; what is counted begins with `start`."""
    if paging.next:
        return read_url(url)
    return read_url(_with(url, paging.parameter, str(paging.start)))


def page_after(
    paging: Paging, first: Location, here: Location, number: int, found: str, rows: int
) -> Location | None:
    """Where the page after page `number` (from 0 on) is; None after the last one.

    `found` is what `next` selects in the page `here`, and `rows` how many rows it has. Malformed if
    the server leads to another host: credentials and the owner's leave are for this one.
    """
    if not paging.next:
        if not rows:
            return None
        value = paging.start + paging.step * (number + 1)
        return read_url(_with(first.url, paging.parameter, str(value)))
    if not found:
        return None
    try:
        if paging.parameter:
            further = read_url(_with(first.url, paging.parameter, found))
        else:
            further = read_url(str(httpx.URL(here.url).join(found)))
    except (InputError, httpx.InvalidURL, ValueError) as error:
        raise Malformed(f"the page after {here.url} is no URL: {error}") from error
    if further.origin != first.origin:
        raise Malformed(
            f"{first.place} says that the next page is at {further.place}, where this source"
            " does not lead"
        )
    return further


def _with(url: str, parameter: str, value: str) -> str:
    return str(httpx.URL(url).copy_set_param(parameter, value))
