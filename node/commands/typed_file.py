"""Small files of text that people write: sources, workflows."""

from pathlib import Path

from wire.errors import InputError


def read_text(path: Path, size_bytes_max: int) -> str:
    """The text of a file; InputError if it cannot be read, is too large, or is no UTF-8."""
    try:
        with path.expanduser().open("rb") as opened:
            data = opened.read(size_bytes_max + 1)
        if len(data) > size_bytes_max:
            raise InputError(f"{path} has more than {size_bytes_max} bytes")
        return data.decode()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text") from error
