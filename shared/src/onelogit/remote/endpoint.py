"""A server's url, API key and headers -> what is sent to it, and what of that is never shown."""

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from onelogit.errors import InputError
from onelogit.options import is_secret_header, is_url

_SHOWN = 300  # characters of what a server said
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"([!-~]([ -~\t]*[!-~])?)?")
_KEY = re.compile(r"[!-~]+")


class Address(NamedTuple):
    """Where a server is, and what lets one in.

    Attributes:
        url: its root, without a slash at the end.
        headers: sent with each request.
        secrets: of them what is never shown.
    """

    url: str
    headers: dict[str, str]
    secrets: tuple[str, ...]

    def is_open_to_readers(self) -> bool:
        """Whether secrets go over plain HTTP to another machine."""
        return bool(self.secrets) and self.url.startswith("http://") and not _is_local(urlsplit(self.url).hostname)

    def shown(self, said: object) -> str:
        """What a server or a library said, as one line without secrets."""
        text = str(said)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        text = "".join(each if each.isprintable() else " " for each in text)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def checked_address(url: str, api_key: str | None, headers: Mapping[str, str] | None) -> Address:
    """The address of a server.

    Args:
        url: its root, with the prefix of a proxy, if there is one.
        api_key: sent as a bearer token; None or "" for none.
        headers: sent with each request; those that are named like one hold a secret, too.

    Raises:
        InputError: the url is no http or https address, or has a password in it; a key or header that cannot be sent.
            The message holds no secret.
    """
    checked = _checked_headers(headers or {})
    secrets = [value for name, value in checked.items() if is_secret_header(name)]
    if api_key:
        if not isinstance(api_key, str) or not _KEY.fullmatch(api_key):
            raise InputError(
                "the API key must be a string of printable ASCII characters without spaces or line breaks; a key that "
                "was read from a file may end with one"
            )
        secrets.append(f"Bearer {api_key}")
        checked = {**{name: checked[name] for name in checked if name.lower() != "authorization"}, **_bearer(api_key)}
    # A server may repeat the key without the word before it.
    words = {word for secret in secrets for word in (secret, secret.rpartition(" ")[2]) if word}
    return Address(_checked_url(url), checked, tuple(sorted(words, key=len, reverse=True)))


def _bearer(api_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"}


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise InputError(f"headers must be a dictionary of strings, not a {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InputError(f"{name!r} is no name of a header")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InputError(f"the header {name} must be a string of printable ASCII characters")
    return dict(headers)


def _checked_url(url: str) -> str:
    parts = _parts_of(url) if is_url(url) and url.isprintable() and " " not in url else None
    if parts is None or not parts.hostname:
        shown = re.sub(r"(?s)[?#].*", "?***", re.sub(r"(?s)^(\w+:/+)?.*@", r"\1***@", str(url)))
        raise InputError(f"the url must be an http or https address such as http://127.0.0.1:8000, not {shown!r}")
    if parts.username or parts.password:
        raise InputError("the url holds a password; give it as api_key, or in the headers")
    if parts.query or parts.fragment:
        raise InputError("the url must be the server's root, without what stands behind a '?' or '#'")
    return url.rstrip("/")


def _parts_of(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        return None if parts.port == 0 else parts
    except ValueError:  # a port that is no number, brackets that do not close
        return None


def _is_local(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
