"""What the other rooms pass on: events of a task, and what its work is counted in."""
