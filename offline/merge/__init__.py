"""Merge: what makes one list of the candidates of all sources, learned on the clicks before the snapshot."""
