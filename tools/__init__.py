"""What people run around the channel: the command line, Triton, the demo."""

if __name__ != "serendipity.tools":
    raise ImportError(f"{__name__}: would be a second copy, import serendipity.tools")
