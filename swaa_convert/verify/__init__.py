"""`swaa-convert verify`: whether a converted repo is what was converted."""
