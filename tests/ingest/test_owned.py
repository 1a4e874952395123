"""The owner's folder: sources as TOML, lists of hosts, and credentials that nobody else reads."""

from pathlib import Path

import pytest

from node.ingest.location import HostRules
from node.ingest.owned import OwnedSources
from node.ingest.source_file import check_strange, read_source
from wire.errors import InputError, StoreUnusable
from wire.fetch import SourceRecord

PRICES = """
kind = "http"
url = "https://api.example.org/v1/prices?pair=BTC-USD"
format = "json"
select = "data"
keep_headers = ["Date", "ETag"]
columns = {time = "t", price = "last.price"}
headers = {Accept = "application/json"}
"""
SECRET = PRICES.replace("headers = {", 'headers = {Authorization = "credential:exchange", ')


@pytest.fixture
def owned(tmp_path: Path) -> OwnedSources:
    return OwnedSources(tmp_path)


def test_a_source_has_one_id_however_it_is_written() -> None:
    record = read_source(PRICES)
    assert [(it.name, it.select) for it in record.extraction.columns] == [
        ("time", "t"),
        ("price", "last.price"),
    ]
    assert record.kept_headers == ("date", "etag")
    lines = [it for it in PRICES.splitlines() if it]
    assert read_source("# a comment\n" + "\n".join(reversed(lines))).id == record.id
    assert read_source(PRICES.replace("BTC", "ETH")).id != record.id
    assert SourceRecord.from_bytes(record.to_bytes()) == record


BAD = {
    "kind = 1": "a source is one of",
    'kind = "ftp"': "a source is one of",
    'kind = "http"': "no 'url'",
    'kind = "http"\nurl = 7': "is a text",
    'kind = "http"\nurl = "file:///etc/passwd"': "does not begin with http",
    'kind = "http"\nurl = "http://u:p@example.org/"': "login",
    'kind = "http"\nurl = "https://example.org/"\npath = "a"': "has no 'path'",
    'kind = "http"\nurl = "https://example.org/"\nformat = "xml"': "is none of",
    'kind = "http"\nurl = "https://example.org/"\nformat = "text"\nselect = "a"': "no rows",
    'kind = "http"\nurl = "https://example.org/"\ncolumns = ["a"]': "no columns",
    'kind = "http"\nurl = "http://a.org/"\nformat = "json"\ncolumns = ["a", 1]': "columns is",
    'kind = "http"\nurl = "https://example.org/"\nheading = "yes"': "true or false",
    'kind = "http"\nurl = "https://example.org/"\nheaders = {host = "a"}': "does not send",
    'kind = "http"\nurl = "https://example.org/"\nheaders = {Cookie = "a"}': "does not send",
    'kind = "http"\nurl = "https://example.org/"\nheaders = {a = "b\\r\\nc: d"}': "printable",
    'kind = "http"\nurl = "https://example.org/"\nheaders = {"a b" = "c"}': "does not send",
    'kind = "http"\nurl = "https://example.org/"\nheaders = ["a"]': "table of texts",
    'kind = "files"\npath = "/data"\nglob = "../*"': "below the folder",
    'kind = "files"\npath = "/data"\nurl = "https://example.org/"': "has no 'url'",
    "kind = ": "not TOML",
    "a = [" * 2000: "not TOML",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_wrong_with_a_source_is_named(text: str) -> None:
    with pytest.raises(InputError, match=BAD[text]):
        read_source(text)


def test_sources_are_kept_by_name(owned: OwnedSources) -> None:
    assert owned.names() == []
    record = owned.add("prices", PRICES)
    assert owned.names() == ["prices"]
    assert owned.get("prices") == record == owned.by_id(record.id)
    assert (owned.folder / "prices.toml").stat().st_mode & 0o777 == 0o600
    # The same again changes nothing: so a host can be allowed afterwards.
    assert owned.add("prices", PRICES) == record
    with pytest.raises(InputError, match="already"):
        owned.add("prices", f"{PRICES}\n")
    owned.remove("prices")
    assert owned.names() == []
    assert owned.by_id(record.id) is None
    with pytest.raises(InputError, match="no source 'prices'"):
        owned.get("prices")


@pytest.mark.parametrize("name", ["", "pydoc", "files", "A", "a/b", "../a", "a.b", "-a", "a" * 33])
def test_a_name_is_a_word_that_means_nothing_else(owned: OwnedSources, name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name"):
        owned.add(name, PRICES)
    assert not owned.has(name)


def test_a_file_that_others_may_change_is_no_source(owned: OwnedSources) -> None:
    owned.add("prices", PRICES)
    (owned.folder / "prices.toml").chmod(0o666)
    with pytest.raises(StoreUnusable, match="others may use it"):
        owned.get("prices")


def test_lists_of_hosts_are_read_anew(owned: OwnedSources) -> None:
    assert owned.rules() == HostRules()
    rules = owned.state / "fetching.toml"
    rules.write_text('deny = ["*.example.org"]\nstrangers = ["*"]\n')
    rules.chmod(0o600)
    assert owned.rules() == HostRules(deny=("*.example.org",), strangers=("*",))
    assert owned.allow(read_source(PRICES)) == "api.example.org:443"
    assert owned.allow(read_source(PRICES)) == "api.example.org:443"
    assert owned.rules() == HostRules(
        allow=("api.example.org:443",), deny=("*.example.org",), strangers=("*",)
    )
    for text, words in (("deny = 1", "list of hosts"), ("x = 1", "says 'x'"), ("a", "not TOML")):
        rules.write_text(text)
        with pytest.raises(InputError, match=words):
            owned.rules()


def test_a_credential_is_the_owners_alone(owned: OwnedSources) -> None:
    with pytest.raises(InputError, match="no credential 'exchange'"):
        owned.add("prices", SECRET)
    (owned.state / "credentials").mkdir()
    file = owned.state / "credentials" / "exchange"
    file.write_text("Bearer abc123\n")
    file.chmod(0o644)
    with pytest.raises(StoreUnusable, match="others may use it") as caught:
        owned.add("prices", SECRET)
    assert "abc123" not in str(caught.value)
    file.chmod(0o600)
    record = owned.add("prices", SECRET)
    assert owned.secrets_of(record) == {"authorization": "Bearer abc123"}
    assert b"abc123" not in record.to_bytes()
    with pytest.raises(InputError, match="no credential of this peer's owner"):
        check_strange(record)
    file.write_text("two\nlines")
    with pytest.raises(InputError, match="not one line"):
        owned.secrets_of(record)


@pytest.mark.parametrize("name", ["../sources/prices", "/etc/passwd", "", "A"])
def test_a_credential_is_named_by_a_word(owned: OwnedSources, name: str) -> None:
    with pytest.raises(InputError, match="no name of a credential"):
        owned.credential(name)


def test_what_another_peer_sends_is_held_to_more() -> None:
    check_strange(read_source(PRICES))
    with pytest.raises(InputError, match="of the kind http"):
        check_strange(read_source('kind = "files"\npath = "/etc"'))
