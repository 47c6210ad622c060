"""Groups of users and what is novel to them (CoEA, arXiv 2508.00450): what training and serving must do alike.

Which clicks make a user's group and which categories are recent (sequence), how the Novelty and Relevance LLMs are
asked (prompt), how their answers become a list (lists), and what their models on Triton are called and fed (model).
Pure definitions: no model is run and no file is read here, but for the specs of models.
"""
