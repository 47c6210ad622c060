"""Batch builders: logs in, one immutable snapshot and trained Triton models out."""
