"""Latent interests of every origin, judged by what users then turn to."""
