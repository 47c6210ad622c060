"""The two LLMs of CoEA (arXiv 2508.00450): tuned on what users chose, then correcting each other in cycles (PCO)."""
