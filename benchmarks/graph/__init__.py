"""CIKG against LightGCN and others by full ranking (arXiv 2412.13544)."""
