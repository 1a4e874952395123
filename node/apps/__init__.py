"""Apps: who may ask at any gateway on an owner's word."""
