"""Evidence: who is convicted by what, and by what nobody is."""
