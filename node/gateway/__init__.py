"""HTTP for clients: the gateway role."""
