"""A file or the environment -> API keys, and whether a request has one of them. Keys never appear in messages."""

import hmac
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers

from onelogit.errors import InputError
from onelogit.options import API_KEY_VARIABLE
from onelogit.serving.refusals import RefusalError
from onelogit.validation import checked_path


class ApiKeys:
    """The keys that requests may have as `Authorization: Bearer KEY`; without keys, every request is accepted.

    Raises:
        InputError: a key is empty, or has white space or characters that a header cannot carry.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        for number, key in enumerate(keys, start=1):
            if not key or not all("!" <= character <= "~" for character in key):
                raise InputError(f"API key {number} is empty, or has white space or non-ASCII characters")
        self._keys = [key.encode() for key in keys]

    def __repr__(self) -> str:
        return f"ApiKeys({len(self._keys)} keys)"

    def check(self, headers: Headers) -> None:
        """Check a request's key, in a time that does not depend on how much of it is right.

        Raises:
            RefusalError: it has none, or a wrong one; 401.
        """
        if not self._keys:
            return
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        found = [hmac.compare_digest(given.strip().encode("utf-8", "replace"), key) for key in self._keys]
        if scheme.lower() != "bearer" or not any(found):
            what = "has no API key" if not given else "has a wrong API key"
            raise RefusalError(
                401, f"the request {what}; send the header 'Authorization: Bearer KEY'", {"WWW-Authenticate": "Bearer"}
            )


def read_keys(file: Path | None) -> list[str]:
    """The keys of a file, one on each line, or of the environment variable ONELOGIT_API_KEY.

    Raises:
        InputError: the file cannot be read or has no key, or the variable is empty.
    """
    if file is not None:
        try:
            lines = checked_path(file).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise InputError(f"the API keys in {file} cannot be read: {reason}") from None
        keys = [line.strip() for line in lines if line.strip()]
        if not keys:
            raise InputError(f"{file} has no API key; write one on each line")
        return keys
    key = os.environ.get(API_KEY_VARIABLE)
    if key is not None and not key.strip():
        raise InputError(f"the environment variable {API_KEY_VARIABLE} is empty; set it to a key, or unset it")
    return [] if key is None else [key.strip()]


def check_exposure(host: str, keys: Sequence[str], *, allows_no_key: bool) -> None:
    """Check that a server that other machines can reach has a key.

    Raises:
        InputError: it has none, and `allows_no_key` is False.
    """
    if not keys and not allows_no_key and not _is_loopback(host):
        raise InputError(
            f"other machines can reach a server at {host}, so it needs an API key: give --api-key-file or set "
            f"{API_KEY_VARIABLE}, or pass --no-api-key to serve without one"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
