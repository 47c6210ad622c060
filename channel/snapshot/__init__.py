"""What is read: an immutable snapshot, its stores and vectors, and its replacement under load."""
