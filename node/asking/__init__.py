"""The asker's side of a task: accepted, watched, kept, and checked again if its signer lied."""
