"""Networks of a user's own, named in recipes and models by their dotted names."""
