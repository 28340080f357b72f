"""Weight files in and out: where each tensor stands, into which file it goes, and how it gets there."""
