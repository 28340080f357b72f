"""`swaa-convert demo`: a real checkpoint converted under several recipes, and what each does to its answers."""
