"""Who uses a network and comes back, from lines that anybody recomputes."""
