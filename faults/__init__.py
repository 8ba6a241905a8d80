"""The faults that gatort must survive: injections, bounds, and the judging of the reactions."""
