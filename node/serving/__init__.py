"""What a peer does for others: admission, the leg server, and one role for each kind of leg."""
