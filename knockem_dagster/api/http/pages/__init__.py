"""Pages for people: shells without data, whose scripts call the API with the token that their user has entered."""
