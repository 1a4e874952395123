"""The peer itself: its roles, its engine, the path a task takes, and its command line."""
