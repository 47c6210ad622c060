"""Where candidates are found: a file per source."""
