"""How times are written in the admin."""
