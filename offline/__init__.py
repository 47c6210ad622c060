"""Batch builders: logs in, one immutable snapshot and trained Triton models out."""

if __name__ != "serendipity.offline":
    raise ImportError(f"{__name__}: would be a second copy, import serendipity.offline")
