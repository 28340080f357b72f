"""`swaa-convert bench`: time and memory of a converted model beside full attention, on the user's own machine."""
