"""Online: one request's way from query to candidates."""

if __name__ != "serendipity.channel":
    raise ImportError(f"{__name__}: would be a second copy, import serendipity.channel")
