"""Online: one request's way from query to candidates."""
