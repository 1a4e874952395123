"""Everything that runs inside the worker process, and the only place where tinygrad is imported."""
