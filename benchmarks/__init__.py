"""What compares papers and measures machines: run from a checkout, `python -m benchmarks.NAME`; not in the wheel."""
