"""Measurement: held-out targets, the papers' metrics, baselines, significance, reports."""
