"""The versions of whatever is measured, as far as it is installed."""

import platform
from importlib.metadata import PackageNotFoundError, version

MEASURED = (
    *("onelogit", "torch", "triton", "transformers", "sentence-transformers", "tokenizers"),
    *("kernels", "flash-attn", "FlagEmbedding"),
)


def versions() -> dict[str, str]:
    """Of Python, and of each distribution that is there."""
    found = {"python": platform.python_version()}
    for name in MEASURED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
