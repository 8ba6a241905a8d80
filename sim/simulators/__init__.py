"""Physics engines behind one contract. They know an arm, cubes and targets, and no task."""
