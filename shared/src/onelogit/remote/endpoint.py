"""A server's url, API key and headers -> the headers of each request, and the secrets that no message may show."""

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from onelogit.errors import InputError
from onelogit.options import is_secret_header, is_url

_MAX_SHOWN = 300  # characters of a server's text in a message
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"([!-~]([ -~\t]*[!-~])?)?")
_KEY = re.compile(r"[!-~]+")


class Endpoint(NamedTuple):
    """A server's url and credentials.

    Attributes:
        url: the server's root, without a trailing slash.
        headers: sent with each request.
        secrets: parts of the headers that are never shown, the longest first.
    """

    url: str
    headers: dict[str, str]
    secrets: tuple[str, ...]

    @property
    def sends_secrets_unencrypted(self) -> bool:
        """Whether secrets go over plain HTTP to another machine."""
        return bool(self.secrets) and self.url.startswith("http://") and not _is_local(urlsplit(self.url).hostname)

    def redact(self, value: object) -> str:
        """The text of a server or library on one line, shortened, with `***` in place of each secret."""
        text = str(value)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        text = "".join(each if each.isprintable() else " " for each in text)
        return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]} ..."


def checked_endpoint(url: str, api_key: str | None, headers: Mapping[str, str] | None) -> Endpoint:
    """The endpoint of a server.

    Args:
        url: the server's root, including the path prefix of a proxy.
        api_key: sent as a bearer token, replacing a header `Authorization`; None or "" for none.
        headers: sent with each request. The values of headers that `is_secret_header` finds are secrets, too.

    Raises:
        InputError: the url is not an http or https url or contains a password, or the key or a header cannot be
            sent. The message contains no secret.
    """
    sent = _checked_headers(headers or {})
    secrets = [value for name, value in sent.items() if is_secret_header(name)]
    if api_key:
        if not isinstance(api_key, str) or not _KEY.fullmatch(api_key):
            raise InputError(
                "the API key must be a string of printable ASCII characters without spaces or line breaks; if it was "
                "read from a file, remove the line break at its end"
            )
        secrets.append(f"Bearer {api_key}")
        sent = {name: value for name, value in sent.items() if name.lower() != "authorization"}
        sent["Authorization"] = f"Bearer {api_key}"
    # A server may repeat the key without the scheme before it.
    parts = {part for secret in secrets for part in (secret, secret.rpartition(" ")[2]) if part}
    return Endpoint(_checked_url(url), sent, tuple(sorted(parts, key=len, reverse=True)))


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise InputError(f"headers must be a dictionary of strings, not a {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InputError(f"{name!r} is not a valid header name")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InputError(f"the header {name} must be a string of printable ASCII characters")
    return dict(headers)


def _checked_url(url: str) -> str:
    parts = _split_url(url) if is_url(url) and url.isprintable() and " " not in url else None
    if parts is None or not parts.hostname:
        shown = re.sub(r"(?s)[?#].*", "?***", re.sub(r"(?s)^(\w+:/+)?.*@", r"\1***@", str(url)))
        raise InputError(f"the url must be an http or https url such as http://127.0.0.1:8000, not {shown!r}")
    if parts.username or parts.password:
        raise InputError("the url contains a user name or password; pass it as api_key or in headers")
    if parts.query or parts.fragment:
        raise InputError("the url must be the server's root, without a query ('?') or a fragment ('#')")
    return url.rstrip("/")


def _split_url(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        return None if parts.port == 0 else parts
    except ValueError:  # the port is not a number, or a bracket is not closed
        return None


def _is_local(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
