"""One run on many processes: what each holds and reads, and what they tell each other."""
