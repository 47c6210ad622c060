"""Whether RecBole, of which the row CFKG is, is installed."""

from __future__ import annotations

from importlib.util import find_spec

from serendipity.offline.errors import BuilderError

_PACKAGES = ("recbole", "colorama", "colorlog", "tensorboard", "texttable")
"""The library, and what importing its models imports."""


class LibraryMissing(BuilderError):
    """A package that only the evaluation needs is not installed: names it, and what to install."""


def require_recbole() -> None:
    """Raise LibraryMissing unless RecBole's models can be imported. They are not imported here: that takes 2 s."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise LibraryMissing(
            f"CFKG: found no package {', '.join(missing)}, expected RecBole; install it with\n"
            "    pip install 'serendipity-recall[evaluation]'\n"
            "    pip install --no-deps recbole==1.2.1"
        )
