"""Tuning language models: what InterestGPT and the Novelty and Relevance LLMs are made from, and how.

A base is the tiny model from scratch, or any directory of a `transformers` model (base_model); it is tuned with `trl`
on completions (sft) or on preferences (reward).
"""
