"""`swaa-convert push-to-hub`: a verified converted repo goes to the Hub, and comes back pinned."""
