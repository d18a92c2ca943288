"""What is ready, what was made, and one node for all of it."""
