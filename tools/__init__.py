"""What people run around the channel: the command line, Triton, the demo, benchmarks."""
