"""What a host remembers between snapshots: feedback, availability, erasures, and the log of its answers."""
