"""Models as files: read and refused, kept by content, held in memory as far as that goes."""
