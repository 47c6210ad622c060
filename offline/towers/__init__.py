"""Dual tower: point-in-time rows, BCE + λ·contrastive, exports (Dewu, arXiv 2508.04032, stage 2)."""
