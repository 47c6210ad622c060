"""One graph of users, items, entities and interests, and the vectors learned from it (CIKG, arXiv 2412.13544)."""
