"""Groups of users (CoEA's DSIE, arXiv 2508.00450, section 4.2): long-term interests, CSIDs and textual profiles."""
