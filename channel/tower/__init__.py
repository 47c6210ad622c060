"""The user tower as the request calls it: on Triton, or in this process."""
