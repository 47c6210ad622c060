"""Distillation: what a slow reasoner answers becomes training data, and a small language model that answers like it.

Dewu (arXiv 2508.04032) distils DeepSeek-R1 into QwQ-32B with 30,000 examples and calls the result InterestGPT. Here
teacher and base are exchangeable: any `Reasoner` teaches, any causal language model of `transformers` learns.
"""
