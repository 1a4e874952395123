"""Model files, judged before any library sees them."""
