"""`up` and `test`: a whole desk, or a throw-away one, started, watched and stopped together."""
