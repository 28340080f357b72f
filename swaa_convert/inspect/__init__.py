"""`swaa-convert inspect`: what a converted repo does, in figures, words and pictures."""
