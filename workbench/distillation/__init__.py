"""Small models that learn from large ones: objectives, many teachers, extraction, and how it is found out."""
