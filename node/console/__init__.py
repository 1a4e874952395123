"""The console: a page for a peer's owner, kept up to date, of what the control socket tells."""
