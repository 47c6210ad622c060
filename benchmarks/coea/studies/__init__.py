"""Studies of CoEA beside its table (arXiv 2508.00450): rounds (Figure 4), affinity (Table 3), sweeps (Figure 6)."""
