"""A workflow's file: what it says, and which line is wrong."""

import re

import pytest

from node.workflows.definition import read_workflow
from node.workflows.toml_lines import line_of
from wire.errors import InputError
from wire.kinds import Level

WHOLE = """\
name = "forecast"
cron = "*/5 9-17 * * 1-5"
zone = "Europe/Berlin"
missed = "all"
missed_max = 12
overlap = "queue"
late = "2m"
deadline = "90s"
tries = 5
keep = 50

[source]
kind = "http"
url = "https://example.org/prices"
format = "json"
columns = {price = "last"}
quorum = 3
agree = "median 0.5%"

[model]
name = "forecaster"
level = "replayed"
verdicts = "1/2"

[model.inputs.x]
columns = ["price"]
last = 8
shape = [1, 8]

[[to]]
kind = "file"
path = "~/forecast.jsonl"

[[to]]
kind = "webhook"
url = "https://example.org/hook"
secret = "hook"

[[to]]
kind = "feed"
"""
SMALL = 'every = "5m"\n\n[source]\nname = "prices"\n'


def test_a_whole_file_is_read() -> None:
    found = read_workflow(WHOLE, "other")
    assert (found.name, found.schedule.zone) == ("forecast", "Europe/Berlin")
    assert (found.rules.missed, found.rules.missed_max, found.rules.late_ms) == ("all", 12, 120_000)
    assert (found.deadline_s, found.tries, found.keep) == (90, 5, 50)
    assert found.source.record is not None
    assert (found.source.quorum, found.source.agree) == (3, "median 0.5%")
    assert found.model is not None
    assert (found.model.operation, found.model.terms.level) == ("call", Level.REPLAYED)
    assert (found.model.terms.needed, found.model.terms.verifiers) == (1, 2)
    assert found.model.inputs[0].shape == (1, 8)
    assert [it.kind for it in found.destinations] == ["file", "webhook", "feed"]


def test_little_is_enough() -> None:
    found = read_workflow(SMALL, "prices")
    assert (found.name, found.model, found.destinations) == ("prices", None, ())
    assert (found.rules.missed, found.rules.overlap, found.deadline_s) == ("skip", "skip", 60)


@pytest.mark.parametrize(
    ("line", "words", "said"),
    [
        ('cron = "*/5 9-17 * * 1-5"', 'cron = "*/5 9-17 * *"', "line 2: cron: .*five fields"),
        ('cron = "*/5 9-17 * * 1-5"', 'every = "5x"', "line 2: .*|line 3: "),
        ('zone = "Europe/Berlin"', 'zone = "Europe/Bonn"', "line 3: zone: .*no time zone"),
        ('missed = "all"', 'missed = "some"', "line 4: missed is one of skip, latest, all"),
        ("missed_max = 12", "missed_max = 0", "line 5: missed_max is a whole number"),
        ('overlap = "queue"', "overlap = 3", "line 6: overlap is one of"),
        ('late = "2m"', 'late = "soon"', "line 7: late: .*no length of time"),
        ('deadline = "90s"', 'deadline = "2d"', "line 8: a deadline is at most"),
        ("tries = 5", "tries = 5.5", "line 9: tries is a whole number"),
        ("keep = 50", "keep = true", "line 10: keep is a whole number"),
        ("keep = 50", "kept = 50", "line 10: there is no 'kept'"),
        ('kind = "http"', 'kind = "ftp"', r"line 13: .*'ftp'.* in \[source\]"),
        ('format = "json"', 'forma = "json"', r"line 15: there is no 'forma' in \[source\]"),
        ("quorum = 3", "quorum = 99", r"line 17: quorum is a whole number .* in \[source\]"),
        ('agree = "median 0.5%"', 'agree = "roughly"', "line 18: agree: .*says not when"),
        ('name = "forecaster"', "name = 7", r"line 21: name is a text.* in \[model\]"),
        ('level = "replayed"', 'level = "sure"', "line 22: level: there is no level"),
        ('verdicts = "1/2"', 'verdicts = "3/2"', "line 22: level: "),
        ('columns = ["price"]', "columns = []", r"line 26: .* in \[model.inputs.x\]"),
        ("shape = [1, 8]", "shape = [1, 0]", r"line 28: shape is .* in \[model.inputs.x\]"),
        (
            'kind = "file"',
            'kind = "tape"',
            r"line 31: kind is one of file, webhook, feed in \[to\]",
        ),
        ('path = "~/forecast.jsonl"', 'path = "x"', "line 32: path begins with / or ~/"),
        (
            'url = "https://example.org/hook"',
            'url = "https://a@b/"',
            r"line 36: a URL with a login in it in \[to\]",
        ),
        ('secret = "hook"', 'secret = "../key"', "line 37: secret is the name of a file"),
    ],
)
def test_an_error_names_the_line(line: str, words: str, said: str) -> None:
    assert line in WHOLE
    with pytest.raises(InputError) as caught:
        read_workflow(WHOLE.replace(line, words, 1), "x")
    assert re.match(said, str(caught.value)), caught.value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("every = ", "not TOML: .*line 1"),
        ("[" * 5000, "not TOML"),
        ('[source]\nname = "a"', "either every or cron"),
        ('every = "5m"\ncron = "* * * * *"\n[source]\nname = "a"', "line 2: .*either"),
        ('every = "5m"\nzone = "UTC"\n[source]\nname = "a"', "line 2: every counts in UTC"),
        ('every = "5m"', r"\[source\] is missing"),
        ('every = "5m"\nsource = 3', "line 2: a source has one of"),
        ('every = "5m"\n[source]\nname = "a"\ntext = "b"', "one of name, text, feed and kind"),
        ('every = "5m"\n[source]\ntext = "b"', "line 3: a text needs a model"),
        (SMALL + "model = 3\n", r"there is no 'model' in \[source\]"),
        ("model = 3\n" + SMALL, r"line 1: model is a table"),
        ("to = 3\n" + SMALL, r"line 1: to is an array of tables"),
        (SMALL + "[model]\n", r"line 5: name is missing in \[model\]"),
        (SMALL + '[model]\nname = "a"\noperation = "fly"', "line 7: operation is one of"),
        (SMALL + '[model]\nname = "a"\noperation = "embed"\n[model.inputs.x]', "for the operation"),
        (
            'every = "5m"\n[source]\ntext = "b"\n[model]\nname = "a"\noperation = "call"',
            "line 3: a text gives a function no numbers",
        ),
        (
            'every = "5m"\n[source]\nkind = "http"\nurl = "http://example.org"\nformat = "csv"\n'
            '[model]\nname = "a"\noperation = "call"',
            "line 3: the source gives a table, and a function takes tensors",
        ),
        (SMALL + '[model]\nname = "a"\n[model.parameters]\na = [1]', "numbers and texts"),
        (SMALL + "[[to]]\nkind = 'feed'\n" * 9, "there are 9 of"),
        ('name = "No Name"\n' + SMALL, "line 1: 'No Name' is no name"),
        ("a" * 20_000, "more than 16384 bytes"),
        ('every = "5m"\n[source]\nkind = "files"\npath = "/"', "no 'path'|kept under a name"),
    ],
)
def test_what_makes_no_workflow_is_said(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_workflow(text, "x")
    assert re.search(said, str(caught.value)), caught.value


def test_lines_are_found_where_people_write_keys() -> None:
    text = 'a = 1\n[ b . c ] # words\n"d" = 2\n[[e]]\nf = 1\n[[e]]\nf = 2\nb2.x = 3\n'
    assert line_of(text, ("a",)) == 1
    assert line_of(text, ("b", "c", "d")) == 3
    assert line_of(text, ("e", 1, "f")) == 7
    assert line_of(text, ("e", 1, "gone")) == 6
    assert line_of(text, ("e", 1, "b2", "x")) == 8
    assert line_of(text, ("z",)) is None
