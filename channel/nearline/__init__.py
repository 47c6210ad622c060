"""The near-line side: interests generated beside the way of a request."""
