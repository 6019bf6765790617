"""The proxies and certificates that environment variables name -> an HTTP client, or an error that names the variable.

`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR`, which httpx reads.
"""

import asyncio
import os
import re
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from onelogit.errors import InputError

_HOST = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+(%\w+)?")


class _Proxy(NamedTuple):
    """A proxy and the environment variable that names it."""

    variable: str
    url: str

    @property
    def shown(self) -> str:
        """The url without a user name and password."""
        return re.sub(r"(?s)^(\w+://)?.*@", r"\1***@", self.url)


def new_http_client(library: Any) -> Any:
    """An `AsyncClient` of httpx2 or httpx.

    Raises:
        InputError: a variable names an unusable proxy, or no readable certificates.
    """
    context = _ssl_context(library, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    for proxy in _proxies():
        _check_proxy(library, context, proxy)
    try:
        return library.AsyncClient(verify=context)
    except (ValueError, library.InvalidURL) as error:
        raise InputError(f"NO_PROXY={os.environ.get('NO_PROXY', os.environ.get('no_proxy'))!r}: {error}") from error


async def proxy_of(url: str) -> str:
    """The variable that names the proxy of requests to a url; "" for none. For a url that cannot be reached.

    Raises:
        InputError: the proxy's host does not exist.
    """
    parts = urlsplit(url)
    of_scheme = {proxy.variable.lower().removesuffix("_proxy"): proxy for proxy in _proxies()}
    proxy = of_scheme.get(parts.scheme, of_scheme.get("all"))
    if proxy is None or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return ""
    try:
        await asyncio.get_running_loop().getaddrinfo(urlsplit(proxy.url).hostname, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"the environment variable {proxy.variable} names the proxy {proxy.shown!r}, whose host is not found "
            f"({error}); correct or unset it"
        ) from None
    return proxy.variable


@cache
def _ssl_context(library: Any, file: str | None, folder: str | None) -> Any:
    """The trusted certificates, cached because reading them takes longer than a request."""
    try:
        if folder and not file and not any(Path(each).is_dir() for each in folder.split(os.pathsep)):
            raise FileNotFoundError(None, "there is no such folder")  # else no certificate would be trusted
        return library.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one: the file contains no certificate
        variable, value = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", folder)
        raise InputError(
            f"the environment variable {variable} must name readable certificates in PEM form, but {value!r} gives: "
            f"{error.strerror or error}; correct or unset it"
        ) from error


def _proxies() -> Iterator[_Proxy]:
    """The proxies in the environment, unless NO_PROXY contains "*"."""
    found = getproxies()
    if "*" in [host.strip() for host in found.get("no", "").split(",")]:
        return
    for scheme in ("http", "https", "all"):
        if value := found.get(scheme):
            lower = f"{scheme}_proxy"
            yield _Proxy(
                lower if os.environ.get(lower) else lower.upper(), value if "://" in value else f"http://{value}"
            )


def _check_proxy(library: Any, context: Any, proxy: _Proxy) -> None:
    try:
        host = urlsplit(proxy.url).hostname or ""
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is not the name of a host")
        library.AsyncHTTPTransport(verify=context, proxy=proxy.url)
    except ImportError:
        raise InputError(
            f"the environment variable {proxy.variable} names the SOCKS proxy {proxy.shown!r}, which needs socksio: "
            f"pip install '{library.__name__}[socks]', or unset it"
        ) from None
    except (ValueError, library.InvalidURL) as error:
        reason = str(error).replace(proxy.url, proxy.shown)
        raise InputError(
            f"the environment variable {proxy.variable} must name a proxy such as http://host:8080 or "
            f"socks5://host:1080, not {proxy.shown!r} ({reason}); correct or unset it"
        ) from None
