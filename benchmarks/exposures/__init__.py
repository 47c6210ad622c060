"""The channel on data with real exposures: what was shown, what of it was clicked, and who would have ranked it how."""
