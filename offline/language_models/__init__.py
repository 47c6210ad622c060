"""Language models behind one interface, wherever they run, and the cache that makes asking them resumable."""
