"""One verified, immutable snapshot out of everything the builders made."""
