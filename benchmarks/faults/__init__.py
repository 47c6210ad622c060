"""What becomes of the calls of a host while something around the service breaks: `python -m benchmarks.faults`."""
