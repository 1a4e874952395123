"""The SRS: read whole, refused in words, and labelled for what it is."""

from pathlib import Path

import pytest

from node.engines.proving.circuit import LOGROWS
from node.engines.proving.srs import CEREMONY, read_srs, trust_words
from tests.engines.proving.samples import srs_file
from wire.errors import InputError


def test_a_home_made_srs_is_called_so_and_one_of_a_ceremony_too(tmp_path: Path) -> None:
    srs = read_srs(srs_file(tmp_path))
    assert not srs.is_of_ceremony
    assert "whoever made that file can forge" in trust_words(srs.digest)
    known = bytes.fromhex(CEREMONY[LOGROWS])
    assert "all who took part in that ceremony" in trust_words(known)


def test_another_byte_is_another_srs(tmp_path: Path) -> None:
    first = read_srs(srs_file(tmp_path)).digest
    assert read_srs(srs_file(tmp_path, fill=b"\1")).digest != first


@pytest.mark.parametrize("wrong", [{"height": LOGROWS - 1}, {"more": 1}, {"more": -1}])
def test_a_file_that_is_no_srs_is_refused_in_words(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="is no SRS of a height from"):
        read_srs(srs_file(tmp_path, **wrong))


def test_an_srs_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_srs(tmp_path / "none")
