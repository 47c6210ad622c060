"""Latent interests: a user's history → core demands → interest nodes of the catalogue's taxonomy."""
