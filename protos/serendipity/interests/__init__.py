"""Latent interests by language model: what training and serving must do alike.

How a user is described to a model (text, prompt), how its answer is read (answer), and how what it names becomes a
node of the vocabulary (grounding). Pure definitions: no model is run and no file is read here.
"""
