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
_KNOWN_PATH = re.compile(r"(?<![:/])(/v[0-9]+)?/(rerank|reranking|reranks|classify)$")


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


class Address(NamedTuple):
    """The address of a server's requests: `url + path`; other requests go to the same url."""

    url: str
    path: str

    @property
    def host(self) -> str:
        """The server's name or IP address; "" if the url is invalid."""
        parts = _split_url(self.url)
        return "" if parts is None else parts.hostname or ""


def split_address(url: str, path: str | None, default: str) -> Address:
    """The root and the path of a url that may already end in the path of the requests, or in its first part, as `/v2`.

    Args:
        url: the server's root, or the address of its requests.
        path: given by the user; None for the url's own or, if it has none, the protocol's.
        default: the protocol's path.

    Raises:
        InputError: the url ends in one path, and another is given.
    """
    url = url.rstrip("/") if isinstance(url, str) else url
    if not is_url(url):
        return Address(url, path or default)  # `checked_endpoint` says what is wrong with it
    found = _KNOWN_PATH.search(url)
    own = found[0] if found and found[0].endswith("/classify") == default.endswith("/classify") else None
    if own is not None and path is not None and not url.endswith(path.rstrip("/")):
        raise InputError(f"the url ends in the path {own!r}, and path={path!r} is given as well; leave one out")
    end = re.search("(?<![:/])/v[0-9]+$", url)
    own_default = re.sub("^/v[0-9]+(?=/)", end[0], default) if end else default  # another version of the same form
    asked = path or own or own_default
    if own is not None:
        return Address(url.removesuffix(asked.rstrip("/")), asked)
    version = re.match("/v[0-9]+(?=/)", asked)
    is_repeated = version is not None and end is not None and version[0] == end[0]
    return Address(url.removesuffix(version[0]) if version and is_repeated else url, asked)


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
    secrets = [value for name, value in sent.items() if is_secret_header(name, value)]
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
