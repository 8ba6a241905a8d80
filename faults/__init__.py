"""The faults that gatort must survive: injections, their bounds, and the judging of what came."""
