"""Who gets in, and how far: second factors of people, terms of tokens."""
