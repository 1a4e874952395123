"""The peer's side of the pipe to a worker: queues, batches, restarts, quarantine."""
