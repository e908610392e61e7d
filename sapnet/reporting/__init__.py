"""Tables, charts and documents made from results files."""
