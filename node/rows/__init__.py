"""Tables: rows in, one answer for each row out."""
