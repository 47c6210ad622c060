"""Data sets in the host schema: adapters for public ones, and a host's own folder."""
