"""The comparison of CoEA's Table 2 (arXiv 2508.00450, section 5): novel categories for users, by every method alike."""
