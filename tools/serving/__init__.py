"""Trained models on NVIDIA Triton: placed in a deployment repository, loaded, asked, unloaded; and Triton itself."""
